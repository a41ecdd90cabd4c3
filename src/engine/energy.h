// Whose the energy is that the device draws. Engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace llorch {

// What one sequence has drawn so far.
struct EnergyShare {
  double joules = 0;
  int64_t rows = 0;  // computed since the meter last moved: not paid yet
};

// Shares each increase of a meter over the rows computed since the one before, however many steps
// that were: a meter may move only now and then (NVML's does every 20 to 100 ms). What is drawn
// while nobody is open is nobody's.
class EnergyAccount {
 public:
  using Meter = std::function<std::optional<double>()>;  // joules since some moment, ascending

  // There is no meter if it shows nothing now. Later it may fail now and then: it has not moved
  // then. Allocates nothing after this, for so many sequences that are open at once.
  EnergyAccount(Meter meter, size_t most_open);

  // A step is about to begin. Reads the meter if nobody was open before.
  void step_begins();
  // It has computed so many rows of a sequence, whose share must stay where it is until end().
  void add(EnergyShare& share, int32_t rows);
  // All its rows are added. Reads the meter.
  void step_ended();
  // The joules of a sequence that has no rows to come; none without a meter. For rows that the
  // meter does not show yet this is a guess, off by what the meter moves by at most: each is
  // taken to cost what rows did the last time it moved, all such guesses together no more than it
  // moved by then. What it shows next pays them before anybody else gets any of it.
  std::optional<double> end(EnergyShare& share);
  void idle() { idle_ = true; }  // nobody is open

 private:
  double increase();

  const Meter meter_;
  std::optional<double> last_;         // reading; none: there is no meter
  std::vector<EnergyShare*> pending_;  // that have rows
  bool idle_ = true;

  double owed_ = 0;         // of what end() has guessed, that the meter has not shown yet
  int64_t ended_rows_ = 0;  // that it was guessed for, since the meter last moved
  double last_increase_ = 0, joules_per_row_ = 0;  // as a step saw it
};

}  // namespace llorch
