#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_embedding_gemma.h>
#include <gemma/weights/hf/hf_fields.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

constexpr auto kModules = "modules.json";

// A file of JSON, read by parse_fields or parse_list.
struct JsonFile {
  template <typename Parse>
  JsonFile(const fs::path& file, const Parse& parse) : path(file.string()) {
    const MappedFile mapped(file);
    const auto bytes = mapped.bytes();
    value = parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
  }

  explicit JsonFile(const fs::path& file) : JsonFile(file, parse_fields) {}

  Fields fields() const { return {value, path}; }

  std::string path;
  nlohmann::json value;
};

struct SentenceModule {
  std::string kind;  // The class, as "Dense".
  fs::path folder;
};

std::vector<SentenceModule> read_modules(const fs::path& directory) {
  const JsonFile file(directory / kModules, parse_list);
  std::vector<SentenceModule> modules;
  for (const auto& item : file.value) {
    if (!item.is_object()) refuse_file(file.path, "it is not a list of modules");
    const Fields fields(item, file.path, fmt::format("[{}].", modules.size()));
    const auto type = fields.text("type").value_or("");
    const fs::path folder = fields.text("path").value_or("");
    if (folder != folder.filename() || folder == "..") {
      fields.refuse("path", fmt::format("is \"{}\", but must be a folder beside the file",
                                        printable(folder.string())));
    }
    modules.push_back({type.substr(type.rfind('.') + 1), directory / folder});
  }
  return modules;
}

// Transformer, Pooling, Dense and so on, Normalize.
std::vector<SentenceModule> checked_modules(const fs::path& directory) {
  auto modules = read_modules(directory);
  std::vector<std::string> kinds;
  for (const auto& part : modules) kinds.push_back(printable(part.kind));
  const auto is_dense = [](const SentenceModule& part) { return part.kind == "Dense"; };
  const auto size = modules.size();
  if (size >= 3 && modules[0].kind == "Transformer" && modules[1].kind == "Pooling" &&
      modules[size - 1].kind == "Normalize" &&
      std::all_of(modules.begin() + 2, modules.end() - 1, is_dense)) {
    return modules;
  }
  refuse_file((directory / kModules).string(),
              fmt::format("its modules are {}, but those of an EmbeddingGemma are Transformer, "
                          "Pooling, Dense, Dense, Normalize",
                          fmt::join(kinds, ", ")));
}

// Old releases have a flag for each way, new ones the way's name.
void check_pooling(const fs::path& folder) {
  const JsonFile file(folder / "config.json");
  const auto fields = file.fields();
  if (fields.text("pooling_mode").value_or("mean") != "mean") {
    fields.refuse("pooling_mode", "is not \"mean\"");
  }
  for (const auto& [name, _] : file.value.items()) {
    if (!name.starts_with("pooling_mode_")) continue;
    const bool is_mean = name == "pooling_mode_mean_tokens";
    if (fields.flag(name) != is_mean) {
      fields.refuse(name, fmt::format("is not {}, as of an EmbeddingGemma", is_mean));
    }
  }
  if (fields.find("include_prompt") != nullptr && !fields.flag("include_prompt")) {
    fields.refuse("include_prompt", "is false, but the mean is over the prompt's tokens as well");
  }
}

int64_t dense_features(const fs::path& folder, int64_t in_features) {
  const JsonFile file(folder / "config.json");
  const auto fields = file.fields();
  if (fields.whole("in_features") != in_features) {
    fields.refuse("in_features",
                  fmt::format("is not {}, what the module before it gives", in_features));
  }
  if (fields.find("bias") == nullptr || fields.flag("bias")) {
    fields.refuse("bias", "is not false, as of an EmbeddingGemma");
  }
  if (!fields.text("activation_function").value_or("").ends_with(".Identity")) {
    fields.refuse("activation_function", "is not torch.nn.modules.linear.Identity");
  }
  const auto out_features = fields.whole("out_features");
  if (!out_features) fields.refuse("out_features", "is not there");
  return *out_features;
}

// A shorter text than the layers could take.
void read_limits(const fs::path& directory, GemmaConfig& config) {
  const auto path = directory / "sentence_bert_config.json";
  if (!fs::exists(path)) return;
  const JsonFile file(path);
  const auto fields = file.fields();
  if (fields.flag("do_lower_case")) fields.refuse("do_lower_case", "is true");
  const auto most = fields.whole("max_seq_length");
  if (most) config.max_position_embeddings = std::min(config.max_position_embeddings, *most);
}

void read_prompts(const fs::path& directory, EmbeddingGemmaConfig& config) {
  const auto path = directory / "config_sentence_transformers.json";
  if (!fs::exists(path)) return;
  const JsonFile file(path);
  const auto fields = file.fields();
  if (const auto prompts = fields.object("prompts")) {
    for (const auto& [name, _] : file.value.at("prompts").items()) {
      config.prompts[name] = prompts->text(name).value_or("");
    }
  }
  config.default_prompt_name = fields.text("default_prompt_name");
}

}  // namespace

bool has_sentence_transformer(const fs::path& path) {
  std::error_code unknown;
  return fs::is_regular_file(path / kModules, unknown);
}

std::vector<fs::path> dense_folders(const fs::path& directory) {
  std::vector<fs::path> folders;
  for (const auto& part : checked_modules(directory)) {
    if (part.kind == "Dense") folders.push_back(part.folder);
  }
  return folders;
}

EmbeddingGemmaConfig read_embedding_gemma_config(const fs::path& directory) {
  const auto modules = checked_modules(directory);
  EmbeddingGemmaConfig config{
      .text = read_hf_encoder_config(directory), .dense_features = {}, .prompts = {}};
  config.text.tokenizer = tokenizer_beside(directory);
  read_limits(directory, config.text);
  check_pooling(modules[1].folder);
  for (const auto& part : modules) {
    if (part.kind != "Dense") continue;
    config.dense_features.push_back(dense_features(part.folder, config.dim()));
  }
  read_prompts(directory, config);
  try {
    validate(config);
  } catch (const std::invalid_argument& error) {
    refuse_file(directory.string(), error.what());
  }
  return config;
}

}  // namespace gemma
