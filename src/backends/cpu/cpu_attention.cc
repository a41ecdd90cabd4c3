// Attention on the CPU: who computes which rows, heads and pieces of the sequences. The arithmetic,
// which does not depend on that, is the kernels'.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_state.h"
#include "base/error.h"
#include "ops/dtype.h"
#include "ops/rope_frequencies.h"

namespace llorch {

static_assert(cpu::kKvQ8Block == kQ8Block);

void Ops::Step::use_rope(const Rope& rope, cpu::Attend* args) {
  const auto& known = cpu.needs.ropes;
  const auto found = std::find(known.begin(), known.end(), &rope);
  if (found == known.end()) {
    throw Error(ErrorCode::kInternal, "[attention] this rope was not used in prepare()");
  }
  const auto index = static_cast<size_t>(found - known.begin());
  const auto half = static_cast<size_t>(rope.dims / 2);
  float* cosines = cpu.rope_table(index);
  float* sines = cosines + static_cast<size_t>(cpu.needs.rows) * half;
  args->rope_dims = rope.dims;
  args->interleaved = rope.interleaved;
  args->cosines = cosines;
  args->sines = sines;
  if (rope_done[index]) return;
  rope_done[index] = true;
  // As transformers does it: the angle is a float product.
  cpu.for_rows(rows(), rope.dims * int64_t{8}, [&](int32_t first, int32_t last, int thread) {
    std::span<const float> frequencies;
    int32_t length = -1;
    for (auto row = static_cast<size_t>(first); row < static_cast<size_t>(last); ++row) {
      const int32_t wanted = rope.trained == 0 ? 0 : batch.rope_len[row];
      if (wanted != length) {
        frequencies = rope_frequencies(rope, wanted, {cpu.scratch_of(thread), half});
        length = wanted;
      }
      const auto position = static_cast<float>(batch.positions[row]);
      for (size_t i = 0; i < half; ++i) {
        const float angle = position * frequencies[i];
        cosines[row * half + i] = std::cos(angle) * rope.factor;
        sines[row * half + i] = std::sin(angle) * rope.factor;
      }
    }
  });
}

void Ops::Step::make_tiles(const Attention& a, int32_t rows_per_tile) {
  cpu.tiles.clear();
  for (size_t s = 0; s < batch.kv_len.size(); ++s) {
    const int32_t end = batch.query_start[s + 1];
    for (int32_t row = batch.query_start[s]; row < end; row += rows_per_tile) {
      const int32_t rows = std::min(rows_per_tile, end - row);
      int32_t first = std::numeric_limits<int32_t>::max(), last = 0;  // positions that are seen
      for (auto i = static_cast<size_t>(row); i < static_cast<size_t>(row + rows); ++i) {
        if (batch.slots[i] < 0) continue;  // padding
        const int32_t position = batch.positions[i];
        first = std::min(first, a.window == 0 ? 0 : std::max(0, position - a.window + 1));
        last = std::max(last, position + 1);
      }
      const int32_t first_piece = last == 0 ? 0 : first / cpu::kPieceTokens;
      const int32_t end_piece = (last + cpu::kPieceTokens - 1) / cpu::kPieceTokens;
      cpu.tiles.push_back({static_cast<int32_t>(s), row, rows, first_piece, end_piece});
    }
  }
}

Tensor Ops::attention(const Tensor& qkv, const Attention& a) {
  auto& cpu = step->cpu;
  const auto& limits = cpu.kv.limits;
  const Shape shape =
      step->measuring
          ? shapes::attention_to_measure(qkv.shape, a, step->batch, limits.spec, named(a.q_norm),
                                         named(a.k_norm))
          : shapes::attention(qkv.shape, a, step->batch, limits, named(a.q_norm), named(a.k_norm));
  const int32_t group = a.heads / a.kv_heads;
  const int32_t tile_rows = std::max(1, cpu::kTileQueries / group);
  Tensor out = step->make(shape);
  if (step->measuring) {
    cpu.needs.queries = std::max(cpu.needs.queries, group * tile_rows);
    cpu.needs.kv_row = std::max(cpu.needs.kv_row, cpu::KvPool::row_of(limits.spec));
    auto& ropes = cpu.needs.ropes;
    if (a.rope) cpu.needs.rope_pairs = std::max(cpu.needs.rope_pairs, a.rope->dims / 2);
    if (a.rope && std::find(ropes.begin(), ropes.end(), a.rope) == ropes.end()) {
      ropes.push_back(a.rope);
    }
    return out;
  }
  if (group * tile_rows > cpu.needs.queries) {
    throw Error(ErrorCode::kInternal, "[attention] more heads than prepare() saw");
  }
  cpu::Attend args{};
  args.qkv = qkv.impl->data;
  args.out = out.impl->data;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim;
  args.window = a.window;
  args.scale = a.scale;
  args.softcap = a.softcap;
  args.q_norm = cpu::vectors_of(a.q_norm);
  args.k_norm = cpu::vectors_of(a.k_norm);
  const auto kv_group = static_cast<size_t>(a.group);
  args.kv = cpu.kv.layer(kv_group, a.layer);
  args.positions = step->batch.positions.data();
  args.slots = step->batch.slots_of(kv_group).data();
  if (a.rope && a.rope->dims > 0) step->use_rope(*a.rope, &args);
  const auto type = static_cast<size_t>(limits.spec.type);
  cpu.for_rows(step->rows(), int64_t{2} * a.kv_heads * a.head_dim,
               [&](int32_t first, int32_t last, int thread) {
                 cpu.kernels.write_kv[type](args, first, last, cpu.scratch_of(thread));
               });
  step->make_tiles(a, tile_rows);
  step->attend(args, kv_group);
  return out;
}

// A pair is a tile of rows and a kv head. One that has more pieces than its share of the work would
// keep one thread busy when the others have nothing left: its pieces are spread, so many of each
// pair at a time as there is memory for, and then merged in order.
void Ops::Step::attend(const cpu::Attend& args, size_t group) {
  const auto type = static_cast<size_t>(cpu.kv.limits.spec.type);
  const auto pair_at = [&](size_t first_tile, int pair) {
    const cpu::RowTile& tile = cpu.tiles[first_tile + static_cast<size_t>(pair / args.kv_heads)];
    return cpu::AttendTile{batch.table(group, static_cast<size_t>(tile.sequence)).data(),
                           tile.first_row,
                           tile.rows,
                           pair % args.kv_heads,
                           tile.first_piece,
                           tile.end_piece};
  };
  const auto pieces_of = [](const auto& tile) { return tile.end_piece - tile.first_piece; };
  int64_t all = 0;
  for (const cpu::RowTile& tile : cpu.tiles) all += int64_t{pieces_of(tile)} * args.kv_heads;
  const int64_t share = std::max<int64_t>(1, all / cpu.most_split_pairs());
  const auto begin = cpu.tiles.begin(), end = cpu.tiles.end();
  const auto split = cpu.pool.threads() == 1 ? end : std::partition(begin, end, [&](auto& tile) {
    return pieces_of(tile) <= share;
  });
  const auto whole = static_cast<size_t>(split - begin);
  cpu.pool.parallel_for(static_cast<int>(whole) * args.kv_heads, [&](int pair, int thread) {
    cpu.kernels.attend[type](args, pair_at(0, pair), cpu.scratch_of(thread));
  });
  if (split == end) return;
  const int pairs = static_cast<int>(end - split) * args.kv_heads;
  int most = 0;
  std::for_each(split, end, [&](auto& tile) { most = std::max(most, pieces_of(tile)); });
  // A state for what each pair has summed, and one for each of its pieces at a time.
  const int at_once = std::min(most, 2 * cpu.most_split_pairs() / pairs);
  const auto piece_state = [&](int pair, int i) { return cpu.state(pairs + pair * at_once + i); };
  for (int from = 0; from < most; from += at_once) {
    cpu.pool.parallel_for(pairs * at_once, [&](int task, int thread) {
      const int pair = task / at_once, i = task % at_once;
      const cpu::AttendTile tile = pair_at(whole, pair);
      const int piece = tile.first_piece + from + i;
      if (piece >= tile.end_piece) return;
      cpu.kernels.attend_piece[type](args, tile, piece, piece_state(pair, i),
                                     cpu.scratch_of(thread));
    });
    cpu.pool.parallel_for(pairs, [&](int pair, int) {
      const cpu::AttendTile tile = pair_at(whole, pair);
      const int first = tile.first_piece + from;
      for (int i = 0; i < at_once && first + i < tile.end_piece; ++i) {
        cpu.kernels.merge_piece(args, tile, first + i, piece_state(pair, i), cpu.state(pair));
      }
      const bool last = first < tile.end_piece && tile.end_piece <= first + at_once;
      if (last) cpu.kernels.finish_attend(args, tile, cpu.state(pair));
    });
  }
}

}  // namespace llorch
