#include <optional>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include <gemma/checkpoint/gguf.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/hf/hf_fields.h>
#include <gemma/weights/stop_tokens.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> of_gguf(const GgufMetadata& metadata) {
  std::vector<int64_t> tokens;
  for (const auto* name : {"eos", "eot", "eom"}) {
    const auto id = metadata.get<int64_t>(fmt::format("tokenizer.ggml.{}_token_id", name));
    if (id) tokens.push_back(*id);
  }
  return tokens;
}

// A number, or a list of them.
std::vector<int64_t> of_json(const MappedFile& file) {
  constexpr auto kField = "eos_token_id";
  const auto bytes = file.bytes();
  const auto object =
      parse_fields({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.path());
  const Fields fields(object, file.path());
  const auto* const given = fields.find(kField);
  if (given == nullptr) return {};
  std::vector<int64_t> tokens;
  for (const auto& id : given->is_array() ? *given : nlohmann::json::array({*given})) {
    if (!id.is_number_integer()) {
      fields.refuse(kField, fmt::format("is {}, not a token's number", Fields::shown(*given)));
    }
    tokens.push_back(id.get<int64_t>());
  }
  return tokens;
}

}  // namespace

std::vector<int64_t> stop_tokens(const fs::path& path) {
  std::error_code unknown;
  if (fs::is_regular_file(path, unknown)) {
    const MappedFile file(path);
    if (is_gguf(file.bytes())) return of_gguf(read_gguf(file.bytes(), file.path()).metadata);
  }
  const auto folder = fs::is_directory(path, unknown) ? path : path.parent_path();
  std::vector<int64_t> tokens;
  for (const auto* name : {"generation_config.json", "config.json"}) {
    if (!fs::is_regular_file(folder / name, unknown)) continue;
    const auto found = of_json(MappedFile(folder / name));
    tokens.insert(tokens.end(), found.begin(), found.end());
  }
  return tokens;
}

}  // namespace gemma
