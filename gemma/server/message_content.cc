#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <gemma/server/base64.h>
#include <gemma/server/message_content.h>

namespace gemma::server {
namespace {

constexpr size_t kMostImages = 8;
constexpr size_t kMostUrlBytes = 20 << 20;

[[noreturn]] void refuse_part(const std::string& what,
                              std::string_view code = "unsupported_value") {
  throw ApiError::bad_field("messages", what, code);
}

bool has_prefix(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  for (size_t i = 0; i < lower.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
    if (c != lower[i]) return false;
  }
  return true;
}

// The file in a data URL (RFC 2397) of an image in Base64. Nothing is fetched from elsewhere: a
// client could else reach what only the server can.
std::string file_of_url(std::string_view url, const std::string& path) {
  if (url.size() > kMostUrlBytes) {
    refuse_part(fmt::format("{} has a URL of {} bytes, but must have {} at most", path, url.size(),
                            kMostUrlBytes),
                "invalid_image");
  }
  constexpr std::string_view kBegin = "data:image/";
  constexpr std::string_view kEncoding = ";base64";
  const auto comma = url.find(',');
  const auto head = url.substr(0, comma == url.npos ? 0 : comma);
  if (!has_prefix(head, kBegin) || !head.ends_with(kEncoding)) {
    refuse_part(
        fmt::format("{} must have a URL that begins with data:image/png;base64, or "
                    "data:image/jpeg;base64, as nothing is fetched",
                    path));
  }
  auto file = from_base64(url.substr(comma + 1));
  if (!file) refuse_part(path + " has a URL whose Base64 is damaged", "invalid_image");
  return *std::move(file);
}

// {"image_url": {"url": "data:…"}}, or the URL itself.
std::string file_of_part(const Fields& part, const std::string& path) {
  const auto* value = part.find("image_url");
  if (value == nullptr) refuse_part(path + " has no image_url");
  if (!value->is_object()) return file_of_url(*part.text("image_url"), path);
  const auto url = Fields(*value, path + ".image_url.").text("url");
  if (!url) refuse_part(path + ".image_url has no url");
  return file_of_url(*url, path);
}

std::string text_of_part(const Fields& part, const std::string& type, const std::string& path) {
  if (type != "text" && type != "refusal") {
    refuse_part(fmt::format("{} is of type {}, but only text and image_url are served", path,
                            to_text(Json(type.substr(0, 40)))));
  }
  const auto text = part.text(type.c_str());
  if (!text) throw ApiError::bad_field("messages", fmt::format("{} has no {}", path, type));
  return *text;
}

}  // namespace

std::string read_content(const Fields& message, size_t index, std::vector<MessageImage>& images) {
  const auto* content = message.find("content");
  if (content == nullptr) return {};
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) message.refuse("content", *content, "a text, or a list of parts");
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const auto& part = (*content)[i];
    auto path = fmt::format("{}[{}]", message.path_of("content"), i);
    if (!part.is_object()) refuse_value(path, part, "an object with a type");
    const Fields fields(part, path + ".");
    const auto type = fields.text("type").value_or("");
    if (type != "image_url") {
      text += text_of_part(fields, type, path);
      continue;
    }
    if (images.size() == kMostImages) {
      refuse_part(fmt::format("{} is one image too many: a request may have {}", path, kMostImages),
                  "invalid_image");
    }
    auto file = file_of_part(fields, path);
    images.push_back(
        {.message = index, .at = text.size(), .path = std::move(path), .file = std::move(file)});
  }
  return text;
}

}  // namespace gemma::server
