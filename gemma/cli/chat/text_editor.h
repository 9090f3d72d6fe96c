#pragma once

#include <string>

namespace gemma::cli {

/// Opens the user's editor ($VISUAL, $EDITOR, or vi) on a text -> what it was saved as, without a
/// line break at its end. Throws std::runtime_error when the editor does not end well.
std::string edit_text(const std::string& text);

}  // namespace gemma::cli
