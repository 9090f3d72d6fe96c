#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

// What is between a model's input and its output, to see and to change. Modules have points; a tap
// is a function that is called with a point's value whenever it is computed.
namespace gemma {

/// Where a value is from, for the function of a tap.
struct TapSite {
  /// The point's name that the tap asked for.
  std::string_view name;
  /// Of a value [B, L, ...], the numbers of the texts of its B rows: rows of the batch, or
  /// sequences in the order in which a ModelRunner made them. Empty when a module computes alone.
  std::span<const int64_t> texts;
  /// Likewise, the position of the first of the L tokens in each of them.
  std::span<const int64_t> positions;
};

/// Is given a value, [B, L, ...] in a model, and returns one in its place, of the same shape, or
/// none. It may write to the value instead. It is called by the thread that computes, of each pass
/// through the model once or more, with some of the texts each time.
using TapFunction =
    std::function<std::optional<at::Tensor>(const at::Tensor& value, const TapSite& site)>;

/// A function for every point that has a name which fits.
struct Tap {
  std::string points;  ///< A name, or a pattern of them as fnmatch(3) takes it: "*", "?", "[01]".
  TapFunction function;
};

/// Keeps taps apart from those of others; see Module::remove_taps.
using TapHandle = std::shared_ptr<const void>;

/// A place in a module.
struct TapPoint {
  std::string_view name;
  /// Whether it is inside an operation, which exact numerics alone compute step by step.
  bool is_inner = false;
};

/// Whose the rows of the values of a pass through a model are.
struct PassRows {
  /// Consecutive tokens of one text.
  struct Part {
    int64_t text;
    int64_t position;  // Of the first token.
    int64_t tokens;
  };

  /// `texts` texts of `tokens` tokens from the same position on.
  static PassRows of_batch(int64_t texts, int64_t tokens, int64_t position);

  std::vector<Part> parts;
  /// Whether values are [T, ...], one part after another; else [B, L, ...], a part each row.
  bool is_flat;
};

/// The passes that threads compute just now. All modules of a model share one.
class TapPasses {
 public:
  /// A pass of this thread, as long as it lives; inside of it there may be others.
  class Pass {
   public:
    Pass(TapPasses& passes, PassRows rows);
    ~Pass();
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    TapPasses& passes_;
    PassRows rows_;
  };

  /// The innermost of this thread; null when there is none.
  const PassRows* current() const;

  /// Whether there is a tap that would want to know.
  bool are_watched() const { return watchers_ > 0; }

 private:
  friend class ModuleTaps;

  std::atomic<int64_t> watchers_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::pair<std::thread::id, const PassRows*>> passes_;
};

/// The taps at one module's points.
class ModuleTaps {
 public:
  explicit ModuleTaps(std::shared_ptr<TapPasses> passes);
  ~ModuleTaps();
  ModuleTaps(const ModuleTaps&) = delete;
  ModuleTaps& operator=(const ModuleTaps&) = delete;

  /// `point` has to live as long as the taps, as those of Module::tap_points do.
  void add(std::string_view point, std::string name, TapFunction function, TapHandle handle);
  void remove(const TapHandle& handle);
  bool empty() const { return taps_.empty(); }
  bool has(std::string_view point) const;

  /// The value of a point after its taps: `value` itself when none is there. Throws
  /// std::invalid_argument for a replacement of another shape.
  at::Tensor apply(std::string_view point, at::Tensor value) const;

 private:
  struct At {
    std::string_view point;
    std::string name;
    TapFunction function;
    TapHandle handle;
  };
  at::Tensor call(std::string_view point,
                  at::Tensor value,
                  std::span<const PassRows::Part> parts) const;

  std::shared_ptr<TapPasses> passes_;
  std::vector<At> taps_;
};

}  // namespace gemma
