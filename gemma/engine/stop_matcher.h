#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gemma {

/// Finds strings that end a text as it grows, wherever it is cut into pieces, and holds back what
/// may become one.
class StopMatcher {
 public:
  /// Empty strings are no stops.
  explicit StopMatcher(std::vector<std::string> stops);

  /// Takes the next piece -> what can be shown of the text by now: all before a stop.
  std::string add(std::string_view piece);

  /// What was held back, when no more comes.
  std::string finish();

  /// Whether the text has ended: the first stop string in it, in the order of its end.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace gemma
