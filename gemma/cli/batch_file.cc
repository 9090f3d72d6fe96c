#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <map>
#include <stdexcept>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>

#include <gemma/cli/batch_file.h>
#include <gemma/cli/text_file.h>

namespace gemma::cli {
namespace {

using Json = nlohmann::ordered_json;

// What is wrong with a line; the caller says which line it is.
struct BadLine : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string shown(const Json& value) {
  constexpr size_t kMost = 40;
  auto text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > kMost) text = text.substr(0, kMost) + "…";
  return text;
}

[[noreturn]] void refuse(std::string_view name, const Json& value, std::string_view expected) {
  throw BadLine(fmt::format("{} is {}, but must be {}", name, shown(value), expected));
}

double number_of(std::string_view name, const Json& value) {
  if (!value.is_number()) refuse(name, value, "a number");
  return value.get<double>();
}

constexpr auto kLargest = std::numeric_limits<int64_t>::max();

int64_t count_of(std::string_view name, const Json& value) {
  const bool is_too_large =
      value.is_number_unsigned() && std::cmp_greater(value.get<uint64_t>(), kLargest);
  if (!value.is_number_integer() || is_too_large) refuse(name, value, "a whole number");
  return value.get<int64_t>();
}

std::string text_of(std::string_view name, const Json& value) {
  if (!value.is_string()) refuse(name, value, "a text");
  return value.get<std::string>();
}

std::vector<std::string> texts_of(std::string_view name, const Json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array()) refuse(name, value, "a text, or a list of them");
  std::vector<std::string> texts;
  for (const auto& text : value) texts.push_back(text_of(name, text));
  return texts;
}

std::vector<ChatMessage> messages_of(std::string_view name, const Json& value) {
  if (!value.is_array()) refuse(name, value, "a list");
  std::vector<ChatMessage> messages;
  for (const auto& message : value) {
    if (!message.is_object() || !message.contains("role") || !message.contains("content")) {
      refuse(name, message, "objects with a role and a content");
    }
    messages.emplace_back(chat_role(text_of("role", message["role"])),
                          text_of("content", message["content"]));
  }
  return messages;
}

using SetField = void (*)(BatchLine& line, std::string_view name, const Json& value);
using Name = std::string_view;

const std::map<std::string_view, SetField>& fields() {
  static const std::map<std::string_view, SetField> kFields{
      {"id",
       [](BatchLine& line, Name name, const Json& v) {
         if (!v.is_string() && !v.is_number_integer()) refuse(name, v, "a text or a whole number");
         line.id = v;
       }},
      {"prompt", [](BatchLine& line, Name name, const Json& v) { line.prompt = text_of(name, v); }},
      {"messages",
       [](BatchLine& line, Name name, const Json& v) { line.prompt = messages_of(name, v); }},
      {"max_tokens", [](BatchLine& line, Name name,
                        const Json& v) { line.rules.max_tokens = count_of(name, v); }},
      {"prompt_lookup", [](BatchLine& line, Name name,
                           const Json& v) { line.rules.prompt_lookup = count_of(name, v); }},
      {"temperature", [](BatchLine& line, Name name,
                         const Json& v) { line.rules.sampling.temperature = number_of(name, v); }},
      {"top_p", [](BatchLine& line, Name name,
                   const Json& v) { line.rules.sampling.top_p = number_of(name, v); }},
      {"top_k", [](BatchLine& line, Name name,
                   const Json& v) { line.rules.sampling.top_k = count_of(name, v); }},
      {"min_p", [](BatchLine& line, Name name,
                   const Json& v) { line.rules.sampling.min_p = number_of(name, v); }},
      {"repetition_penalty",
       [](BatchLine& line, Name name, const Json& v) {
         line.rules.sampling.repetition_penalty = number_of(name, v);
       }},
      {"presence_penalty",
       [](BatchLine& line, Name name, const Json& v) {
         line.rules.sampling.presence_penalty = number_of(name, v);
       }},
      {"frequency_penalty",
       [](BatchLine& line, Name name, const Json& v) {
         line.rules.sampling.frequency_penalty = number_of(name, v);
       }},
      {"seed",
       [](BatchLine& line, Name name, const Json& v) {
         if (!v.is_number_unsigned()) refuse(name, v, "a whole number, 0 or more");
         line.rules.seed = v.get<uint64_t>();
       }},
      {"stop",
       [](BatchLine& line, Name name, const Json& v) { line.rules.stop = texts_of(name, v); }},
  };
  return kFields;
}

void read_line(std::string_view text, BatchLine& line) {
  const auto object = [&] {
    try {
      return Json::parse(text);
    } catch (const Json::parse_error& error) {
      throw BadLine(fmt::format("is no JSON: byte {} is unexpected", error.byte));
    }
  }();
  if (!object.is_object())
    throw BadLine(fmt::format("is {}, but must be an object", shown(object)));
  for (const auto& [name, value] : object.items()) {
    const auto field = fields().find(name);
    if (field == fields().end()) {
      std::vector<std::string_view> names;
      for (const auto& [known, _] : fields()) names.push_back(known);
      throw BadLine(
          fmt::format("field {} is unknown; fields: {}", shown(name), fmt::join(names, ", ")));
    }
    field->second(line, name, value);
  }
  if (object.contains("prompt") == object.contains("messages")) {
    throw BadLine("must have either a prompt or messages");
  }
}

[[noreturn]] void refuse_out(const std::string& path, std::string_view what) {
  throw std::runtime_error(fmt::format("--out {}: {}", path, what));
}

[[noreturn]] void refuse_write(const std::string& path) {
  refuse_out(path, fmt::format("cannot be written to: {}", std::strerror(errno)));
}

}  // namespace

std::vector<BatchLine> read_batch(const std::string& path, const GenerateRules& rules) {
  const auto text = read_text_file("--prompts", path);
  std::vector<BatchLine> lines;
  int64_t number = 1;
  for (std::string_view rest = text; !rest.empty(); ++number) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.find_first_not_of(" \t") == line.npos) continue;
    lines.push_back({.number = number, .id = number, .prompt = {}, .rules = rules});
    try {
      read_line(line, lines.back());
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("{}: line {}: {}", path, number, error.what()));
    }
  }
  if (lines.empty()) {
    throw std::runtime_error(fmt::format(
        "{}: has no lines; give one for each text, such as {{\"prompt\": \"Once\"}}", path));
  }
  return lines;
}

BatchOutput::BatchOutput(const std::string& path, const std::vector<BatchLine>& lines)
    : path_(path), file_(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  if (file_ < 0) refuse_write(path_);
  try {
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) refuse_out(path_, "another run writes to it");
    const auto text = read_whole_lines();
    for (std::string_view rest = text; !rest.empty(); ++size_) {
      const auto line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(line.size() + 1);
      const auto result = Json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
      if (size_ < lines.size() && result.is_object() && result.contains("id") &&
          result["id"] == lines[size_].id) {
        continue;
      }
      refuse_out(path_, fmt::format("line {} is no result of {}; name another file", size_ + 1,
                                    size_ < lines.size()
                                        ? fmt::format("the text {}", shown(lines[size_].id))
                                        : "these texts"));
    }
  } catch (...) {
    ::close(file_);
    throw;
  }
}

BatchOutput::~BatchOutput() { ::close(file_); }

std::string BatchOutput::read_whole_lines() {
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (ssize_t got = 1; got > 0;) {
    got = ::read(file_, buffer.data(), buffer.size());
    if (got < 0) refuse_out(path_, fmt::format("cannot be read: {}", std::strerror(errno)));
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  const auto whole = text.rfind('\n') + 1;  // 0 where there is none.
  if (whole < text.size() && ::ftruncate(file_, static_cast<off_t>(whole)) != 0) {
    refuse_write(path_);
  }
  text.resize(whole);
  return text;
}

void BatchOutput::append(const nlohmann::ordered_json& result) {
  const auto line = result.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  const auto text = line + "\n";
  for (std::string_view rest = text; !rest.empty();) {
    const auto written = ::write(file_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse_write(path_);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  ++size_;
}

}  // namespace gemma::cli
