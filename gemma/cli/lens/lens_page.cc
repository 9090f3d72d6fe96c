#include <string_view>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/cli/json_text.h>
#include <gemma/cli/lens/lens_page.h>

namespace gemma::cli {
namespace {

// Row by row up to the diagonal, two hexadecimal digits a weight, ff for 1.
std::string hex_pattern(const at::Tensor& pattern) {
  const auto bytes = (pattern * 255).round().to(at::kByte).contiguous();
  const auto* const values = bytes.const_data_ptr<uint8_t>();
  const auto length = bytes.size(0);
  std::string text;
  for (int64_t query = 0; query < length; ++query) {
    for (int64_t key = 0; key <= query; ++key) {
      fmt::format_to(std::back_inserter(text), "{:02x}", values[query * length + key]);
    }
  }
  return text;
}

// JSON inside of <script>, where only "</script" and "<!--" mean something.
std::string escaped(const nlohmann::ordered_json& data) {
  std::string text;
  for (const char c : to_json(data)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

std::string lens_page(const LensTable& table, const Tokenizer& tokenizer) {
  auto data = lens_json(table, tokenizer);
  auto& patterns = data["patterns"] = nlohmann::ordered_json::array();
  for (const auto& layer : table.patterns) {
    auto heads = nlohmann::ordered_json::array();
    for (const auto& pattern : layer.unbind(0)) heads.push_back(hex_pattern(pattern));
    patterns.push_back(std::move(heads));
  }
  constexpr std::string_view kData = "{{data}}";
  std::string page = lens_page_text();
  return page.replace(page.find(kData), kData.size(), escaped(data));
}

}  // namespace gemma::cli
