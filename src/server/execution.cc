#include "server/execution.h"

#include <new>
#include <utility>

#include "base/log.h"
#include "base/memory_reserve.h"
#include "server/job_log.h"

namespace llorch {

Execution::Execution(std::shared_ptr<Reader> reader, const Request& request,
                     std::unique_ptr<EventWriter> writer, const Options& options)
    : reader_(std::move(reader)),
      writer_(std::move(writer)),
      options_(options),
      job_id_(request.job_id),
      correlation_id_(request.correlation_id),
      from_(reader_->position()),
      ended_(reader_->at_end()) {}

Execution::~Execution() {
  if (reader_->first()) return;  // the job's own line tells it
  const auto read = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - attached_);
  log(Level::kInfo, "execute_end",
      {{"job_id", job_id_},
       {"correlation_id", correlation_id_},
       {"outcome", outcome_},
       {"attached", true},
       {"from_event", from_},
       {"events", reader_->position() - from_},
       {"total_ms", read.count()}});
}

std::string Execution::take() {
  std::string bytes;
  if (!out_of_memory_) {
    try {
      const MayFail may;
      write_waiting(bytes);
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;  // an event is lost
      ended_ = false;
      reader_->leave();
    }
  }
  if (!out_of_memory_ || ended_ || !bytes.empty()) return bytes;
  const Event end = FailedEvent{"VRAM_OOM", "out of memory", true};
  note(end);
  return writer_->write(end);
}

void Execution::write_waiting(std::string& bytes) {
  constexpr size_t kEnough = 64 * 1024;
  while (!ended_ && bytes.size() < kEnough) {
    const uint64_t number = reader_->position();
    const std::shared_ptr<const Event> event = reader_->next();
    if (!event) break;
    std::string text = writer_->write(*event);
    if (options_.event_ids && reader_->position() > number) {
      text.insert(0, "id: " + std::to_string(number) + "\n");
    }
    bytes += text;
    note(*event);
  }
}

void Execution::note(const Event& event) {
  ended_ = is_terminal(event);
  if (ended_) outcome_ = outcome_name(event);
}

}  // namespace llorch
