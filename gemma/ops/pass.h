#pragma once

namespace gemma {

/// What the rows of an operation's input are. A backend may compute the rows of a prompt and those
/// of texts that are being continued in different ways, of which each gives a row the same bits
/// whatever other rows there are. So a text does not depend on what is computed beside it.
enum class Pass {
  kAny,     ///< Not said: the backend may choose by the number of rows.
  kPrompt,  ///< Any number of tokens of each text.
  kDecode,  ///< One token of each text.
};

}  // namespace gemma
