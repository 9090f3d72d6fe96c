#include <cstddef>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/format_error.h>
#include <gemma/weights/hf/json_events.h>

namespace gemma {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;
constexpr auto kListKey = "[]";

// nlohmann's events, which know no path, as ours.
class Handler final : public nlohmann::json_sax<json> {
 public:
  explicit Handler(const JsonEvents& events) : events_(events) {}

  const std::optional<size_t>& error_at() const { return error_at_; }

  bool null() override { return value(nullptr); }
  bool boolean(bool given) override { return value(given); }
  bool number_integer(number_integer_t given) override { return value(given); }
  bool number_unsigned(number_unsigned_t given) override { return value(given); }
  bool number_float(number_float_t given, const string_t& /*text*/) override {
    return value(given);
  }
  bool string(string_t& given) override { return value(std::move(given)); }
  bool binary(binary_t& /*given*/) override { return false; }  // JSON has none.

  bool start_object(size_t /*elements*/) override { return enter({}); }
  bool key(string_t& name) override {
    path_.back() = std::move(name);
    return true;
  }
  bool end_object() override { return leave(); }
  bool start_array(size_t /*elements*/) override { return enter(kListKey); }
  bool end_array() override { return leave(); }

  bool parse_error(size_t position,
                   const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    error_at_ = position;
    return false;
  }

 private:
  bool value(const json& given) { return events_.on_value(path_, given); }

  bool enter(std::string key) {
    if (path_.size() == kMaxDepth) format_error("it is nested more than {} deep", kMaxDepth);
    path_.push_back(std::move(key));
    return true;
  }

  bool leave() {
    path_.pop_back();
    return events_.on_end(path_);
  }

  const JsonEvents& events_;
  JsonPath path_;
  std::optional<size_t> error_at_;
};

}  // namespace

void read_json(std::string_view text, const JsonEvents& events) {
  Handler handler(events);
  json::sax_parse(text.begin(), text.end(), &handler);
  if (handler.error_at()) {
    format_error("it is not JSON (at byte {}): download it again", *handler.error_at());
  }
}

std::string joined(const JsonPath& path) { return fmt::format("{}", fmt::join(path, ".")); }

}  // namespace gemma
