#include <algorithm>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include <gemma/checkpoint/format_error.h>
#include <gemma/checkpoint/shard_index.h>

namespace gemma {
namespace {

using nlohmann::json;

constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr size_t kMaxDepth = 64;

// Without a slash, and neither "." nor "..", joining it to a directory cannot leave the directory.
bool is_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         std::ranges::none_of(
             name, [](unsigned char c) { return c == '/' || c == '\\' || c < 0x20 || c == 0x7f; });
}

// Sees the JSON as a stream: no tree is built, so its depth costs nothing. Only what is directly in
// the top level's "weight_map" is kept.
class WeightMapReader : public nlohmann::json_sax<json> {
 public:
  std::map<std::string, std::string> take() {
    if (!found_) format_error("it has no \"weight_map\"");
    if (weight_map_.empty()) format_error("its \"weight_map\" is empty");
    return std::move(weight_map_);
  }

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a number"); }
  bool binary(binary_t&) override { return other("binary"); }
  bool string(string_t& value) override {
    if (!in_map()) return other("a string");
    if (!is_file_name(value)) {
      format_error("it says that tensor '{}' is in '{}', which is not the name of a file beside it",
                   printable(key_), printable(value));
    }
    const auto [known, is_new] = weight_map_.try_emplace(key_, value);
    if (!is_new && known->second != value) {
      format_error("it says that tensor '{}' is both in '{}' and in '{}'", printable(key_),
                   printable(known->second), printable(value));
    }
    return true;
  }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ == 1 && key_ == "weight_map") {
      if (found_) format_error("it has two \"weight_map\"");
      found_ = in_weight_map_ = true;
    } else if (depth_ > 0) {
      other("an object");
    }
    return descend();
  }
  bool end_object() override {
    if (--depth_ == 1) in_weight_map_ = false;
    return true;
  }
  bool start_array(size_t) override {
    other("an array");
    return descend();
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    format_error("it is not JSON (at byte {}): download it again", position);
  }

 private:
  bool in_map() const { return in_weight_map_ && depth_ == 2; }
  bool descend() {
    if (++depth_ > kMaxDepth) format_error("it is nested more than {} deep", kMaxDepth);
    return true;
  }
  // Anything may stand beside the map, but in it and in its place only what it is made of.
  bool other(std::string_view what) const {
    if (depth_ == 0) format_error("it is {}, not an object with a \"weight_map\"", what);
    if (depth_ == 1 && key_ == "weight_map") {
      format_error("its \"weight_map\" is {}, not an object", what);
    }
    if (in_map()) {
      format_error("its \"weight_map\" gives {} for tensor '{}', not the name of a file", what,
                   printable(key_));
    }
    return true;
  }

  std::map<std::string, std::string> weight_map_;
  std::string key_;
  size_t depth_ = 0;
  bool in_weight_map_ = false;
  bool found_ = false;
};

}  // namespace

std::map<std::string, std::string> read_shard_index(std::string_view text,
                                                    const std::string& path) {
  try {
    if (text.size() > kMaxIndexBytes) {
      format_error("it has {} bytes, more than {}", text.size(), kMaxIndexBytes);
    }
    WeightMapReader reader;
    json::sax_parse(text.begin(), text.end(), &reader);
    return reader.take();
  } catch (const FormatError& error) {
    refuse_file(path, error.what());
  }
}

}  // namespace gemma
