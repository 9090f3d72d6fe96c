#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <gemma/server/json.h>

namespace gemma::server {

/// An image of a chat.
struct MessageImage {
  size_t message;    ///< Which of the messages has it.
  size_t at;         ///< Before which byte of the message's text it stands.
  std::string path;  ///< Where it is in the request: "messages[0].content[1]".
  std::string file;  ///< The bytes of a PNG or JPEG file; what they are is not looked at.
};

/// The text of a chat's message, the `index`-th: its field content, a text or a list of parts. Its
/// images are appended to `images`. Throws ApiError for parts that are wrong or not served, and
/// for images that are not in the request itself, are too large or too many.
std::string read_content(const Fields& message, size_t index, std::vector<MessageImage>& images);

}  // namespace gemma::server
