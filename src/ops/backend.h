// All that the engine and model code may ask of a device. Exactly one OBJECT library per binary
// defines these members (CMake picks it): no virtuals, no #ifdef, no device type in any signature.
//
// Axes, row-major throughout: T tokens of a step, S sequences, L wanted rows, D model, H query
// heads, K kv heads, E head dim, F ffn, V vocabulary, G kv groups, N block-table width, P tokens
// per kv block. Slot: a token's place in the kv blocks of a group, block * P + offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llorch {

// The quantised types are ggml's blocks (ops/dtype.h says how large), and our own f8_e4m3: an f16
// scale for 32 values of 8 bits, where BackendInfo::f8. Weights have any of them, a kv cache q8_0
// and f8_e4m3 alone.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kF8E4M3
};
enum class Act : uint8_t { kSilu, kGeluTanh, kGelu };  // kGelu: the exact one, by erf
enum class NormKind : uint8_t { kRms, kLayer };

size_t size_bytes(DType type);  // of one element; not of a quantised type
const char* name(DType type);   // "f32", "bf16", "q4_k"

struct Shape {
  int32_t rows = 0, cols = 0;
  bool operator==(const Shape&) const = default;
};

struct Device {
  std::string name;
  uint64_t total_bytes = 0, free_bytes = 0;
};

// A checkpoint's tensor; a vector of n is {1, n}. `bytes` need not be aligned. Rows of a quantised
// type are whole blocks.
struct RawTensor {
  std::string name;
  DType type = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;
};

template <class Tag>
struct Handle {  // a reference-counted value; what it names never changes
  struct Impl;   // completed inside the backend only
  std::shared_ptr<Impl> impl;
  Shape shape;
  DType type = DType::kF32;
  explicit operator bool() const { return impl != nullptr; }
};
using Tensor = Handle<struct TensorTag>;  // an activation; its memory returns with the last handle
using Weight = Handle<struct WeightTag>;  // repacked for this device's kernels; layout private

// One step's input. Host memory that stays unchanged until collect() returns, where
// BackendInfo::steps_in_flight is 1; else until submit() does, what Sampling points to included.
struct Batch {
  // [T] token id; -1 - r: the one that wanted row r of the step submitted before gives, or any if
  // it gives none. That step may be in flight.
  std::span<const int32_t> tokens;
  std::span<const int32_t> positions;    // [T] 0-based index within its own sequence
  std::span<const int32_t> slots;        // [G, T] where to write k, v; -1 = padding, writes nothing
  std::span<const int32_t> query_start;  // [S + 1] first row of each sequence; the last is T
  std::span<const int32_t> kv_len;       // [S] tokens visible once this step has written its own
  std::span<const int32_t> blocks;      // [G, S, N] physical block ids in order; -1 = none, or gone
  std::span<const int32_t> logit_rows;  // [L] rows whose next token is wanted, ascending
  int32_t blocks_per_sequence = 0;      // N
  std::span<const int32_t> rope_len = {};  // [T] the length that Rope::trained is compared with;
                                           // may be empty where no rope asks
  int32_t rows_before = 0;                 // wanted ones of the step before that `tokens` may name

  std::span<const int32_t> slots_of(size_t group) const {  // [T]
    return slots.subspan(group * tokens.size(), tokens.size());
  }
  std::span<const int32_t> table(size_t group, size_t sequence) const {  // [N]
    const auto width = static_cast<size_t>(blocks_per_sequence);
    return blocks.subspan((group * kv_len.size() + sequence) * width, width);
  }
};

// Rotary embedding of the first `dims` of a head. Angle of pair i at position p: p * frequency[i];
// cos and sin are multiplied by `factor`. Pairs are (i, i + dims/2), or (2i, 2i+1) if interleaved.
// Rows whose rope_len is above `trained` use other frequencies than inv_freq; see
// ops/rope_frequencies.h.
struct Rope {
  int dims = 0;
  bool interleaved = false;
  float factor = 1;
  std::vector<float> inv_freq = {};  // [dims / 2]
  // Scaling that depends on the length of a sequence; 0: none does.
  int trained = 0;
  std::vector<float> long_inv_freq = {};  // longrope: for rows of sequences longer than `trained`
  double theta = 0, ntk_factor = 0;       // dynamic: theta grows with the length beyond `trained`
};

// x / rms(x) * gain, or LayerNorm: (x - mean(x)) / deviation(x) * gain + bias. Vectors are {1, n}.
struct Norm {
  NormKind kind = NormKind::kRms;
  float eps = 0;
  const Weight* gain = nullptr;
  const Weight* bias = nullptr;  // of a LayerNorm, which may have none
};

// q/k norm (if given), rope, kv write at the batch's slots, causal paged attention. A row sees the
// positions up to its own; a padding row sees none and gives zeros.
struct Attention {
  int group = 0, layer = 0;  // of the kv cache; `layer` counts within the group
  int heads = 0, kv_heads = 0, head_dim = 0;
  int window = 0;  // a row sees the last `window` tokens, itself included; 0 = all
  float scale = 1;
  float softcap = 0;           // 0 = off
  const Rope* rope = nullptr;  // null: none
  const Norm* q_norm = nullptr;
  const Norm* k_norm = nullptr;
};

// A mixture of X experts, each a gated MLP. A row goes to the top_k experts of the highest router
// logits (the lowest index on a tie); their results, added in the order of their indices, weigh
// what a softmax over all X logits gives, divided by the sum over the chosen ones if `renormalize`.
struct Moe {
  const Weight* router = nullptr;        // {X, D}
  std::span<const Weight> gate_up = {};  // X of {2F, D}
  std::span<const Weight> down = {};     // X of {D, F}
  int top_k = 0;
  bool renormalize = false;
  Act act = Act::kSilu;
  // One more expert, through which every row goes, of a size of its own; added last.
  const Weight* shared_gate_up = nullptr;  // {2G, D}
  const Weight* shared_down = nullptr;     // {D, G}
  const Weight* shared_gate = nullptr;  // {1, D}: its result times sigmoid(x gate); null: times 1
};

// The tape of one step. Inputs are never written. Every op checks its shapes (ops/shapes.h) and
// throws Error{kInternal} "[op] ..." on a mismatch. Engine thread only, inside a Forward.
class Ops {
 public:
  Tensor embed(const Weight& table, float scale = 1);            // [T] -> [T, D]
  Tensor norm(const Tensor& x, const Norm& n);                   // [T, D]
  Tensor add_norm(const Tensor& x, Tensor* sum, const Norm& n);  // norm of *sum += x; [T, D]
  void add(const Tensor& x, Tensor* sum);                        // *sum += x; [T, D]
  Tensor linear(const Tensor& x, const Weight& w);               // [T, In] -> [T, Out]
  Tensor attention(const Tensor& qkv, const Attention& a);       // [T, (H + 2K) E] -> [T, H E]
  // act(x gate) * (x up) down. gate_up stacks gate's F rows over up's. [T, D] -> [T, D]
  Tensor mlp(const Tensor& x, const Weight& gate_up, const Weight& down, Act act);
  // act(x up) down, without a gate. up {F, D}. [T, D] -> [T, D]
  Tensor plain_mlp(const Tensor& x, const Weight& up, const Weight& down, Act act);
  Tensor moe(const Tensor& x, const Moe& m);                              // [T, D] -> [T, D]
  Tensor logits(const Tensor& x, const Weight& head, float softcap = 0);  // [T, D] -> [L, V] f32

  struct Step;
  Step* step = nullptr;
};

// A model's step: pure, no host reads, no branch on token values. Returns what logits() gave.
using Forward = std::function<Tensor(Ops&)>;

// How one wanted row becomes a token. Order: repetition penalty over `history` -> temperature ->
// top-k -> top-p -> min-p -> draw. A draw depends on (seed, index) alone.
struct Sampling {
  float temperature = 1;         // 0: argmax, the lowest id on a tie
  float top_p = 1;               // 1: off; 0 keeps the top token
  float min_p = 0;               // 0: off
  float repetition_penalty = 1;  // 1 or 0: off
  int32_t top_k = 0;             // 0 or above the vocabulary: off
  uint64_t seed = 0;
  uint32_t index = 0;                     // of the token in the output
  std::span<const int32_t> history = {};  // prompt and output so far; used by the penalty alone
  int32_t top_logprobs = -1;              // -1: none; 0: the token's own; n: also the n most likely
  bool keep_logits = false;               // give the raw row back (tests, parity checks)
};
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};
struct Sampled {
  int32_t token = 0;              // -1: the row has a NaN or infinity; nothing else is set then
  float logprob = 0;              // log-softmax of the raw f32 row; 0 if top_logprobs is -1
  std::vector<TokenLogprob> top;  // most likely first, the lowest id first on a tie
  std::vector<float> logits;      // [V] if keep_logits
};

// Layers that share a block table. With a window, a block is given up once no row to come sees it.
struct KvGroup {
  int layers = 0;
  int window = 0;  // 0 = the whole context
};
struct KvSpec {
  std::vector<KvGroup> groups;
  int kv_heads = 0, head_dim = 0, block_tokens = 0;
  DType type = DType::kF32;
};

struct BackendOptions {
  int device_index = 0;
  int threads = 0;  // 0: as many as the backend finds right; CPU only
};

// Owns device, threads, scratch and kv blocks. Made, used and destroyed by one thread, but for
// device(), weight_bytes() and energy_j(), which any thread may call.
// Start-up order: pack all -> create_kv with one block a group -> prepare(f, largest) ->
// create_kv with all of them -> record(f).
class Backend {
 public:
  explicit Backend(const BackendOptions& options);  // throws Error{kDevice}
  ~Backend();

  Device device() const;
  // Sums 2 x 2 zeros on the device, reads the sum back and compares. Throws Error{kDevice}.
  void verify_device();
  // Stacks the rows of `parts` (and of `bias`, one vector per part, or none) into one weight,
  // stored as `type`, but quantised parts as they are; vectors ({1, n}: norm gains, no op takes
  // them for a matrix) are kept in f32. The bytes are not needed afterwards. Throws OutOfMemory.
  Weight pack(std::span<const RawTensor> parts, DType type, std::span<const RawTensor> bias = {});
  // Runs f on `largest` (slots all -1) to measure its scratch, fixes it, and returns its bytes.
  uint64_t prepare(const Forward& f, const Batch& largest);
  // Bytes of one block of a group, for sizing. All blocks are taken at once, `blocks[g]` of each
  // group; throws OutOfMemory.
  static uint64_t block_bytes(const KvSpec& spec, size_t group);
  void create_kv(const KvSpec& spec, std::span<const int32_t> blocks);
  void copy_block(size_t group, int32_t from, int32_t to);
  // Starts a step; `sampling` has L entries. collect() waits for it and gives L results. Where
  // steps_in_flight is 2 the next may be submitted before: steps and copy_block() take effect in
  // the order of their calls, and collect() gives the oldest, which is gone if it throws. Throws
  // Error{kDevice} when the device is lost, Error{kInternal} on a wrong shape.
  void submit(const Forward& f, const Batch& batch, std::span<const Sampling> sampling);
  std::vector<Sampled> collect();
  // From now on steps of f with few rows may be replayed without calling f, where a device gains by
  // it; until the next prepare() or create_kv(), submit() is then given no other f for such steps.
  void record(const Forward& f);
  // Memory really held for weights, in bytes.
  uint64_t weight_bytes() const;
  // Joules that the device has drawn since it was opened; none where there is no meter. Any thread.
  std::optional<double> energy_j() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What this binary is: set by the one backend it links.
struct BackendInfo {
  const char* name;                   // "cpu"
  const char* device_flag = nullptr;  // "cuda-device", or null where there is nothing to choose
  // What products round activations to beside weights in bf16, in f16 and in blocks: f32 (nothing
  // is rounded), bf16, f16, or q8_0 (ref::rounded_to_int8).
  DType beside_bf16 = DType::kF32, beside_f16 = DType::kF32, beside_quantised = DType::kF32;
  bool computes = true;  // else results are made up, and there is nothing to verify
  bool f8 = false;       // has DType::kF8E4M3
  // 2: submit() does not compute, so that the next step may be submitted before a collect().
  int steps_in_flight = 1;
  int step_tokens = 512;  // rows of a step that fill the device
  int kv_percent = 25;    // of its free memory, the most that kv blocks take unless told otherwise
};
extern const BackendInfo kBackendInfo;

}  // namespace llorch
