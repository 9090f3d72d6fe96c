#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/not_a_model.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMerge =
    "merge it into its base model with merge_and_unload() of peft, save that with "
    "save_pretrained(), and give the new directory";

constexpr std::array<std::string_view, 3> kAdapterFiles = {
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"};

constexpr std::array<std::string_view, 6> kEndings = {".safetensors", ".gguf", ".ckpt",
                                                      ".bin",         ".pt",   ".pth"};

bool has_adapter(const fs::path& directory) {
  std::error_code unknown;
  return std::ranges::any_of(
      kAdapterFiles, [&](std::string_view name) { return fs::exists(directory / name, unknown); });
}

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  std::error_code unreadable;
  for (const auto& file : fs::directory_iterator(directory, unreadable)) {
    names.insert(file.path().filename().string());
  }
  return names;
}

// "a, b, ...".
std::string list_of(const std::set<std::string>& names) {
  constexpr size_t kShown = 10;
  std::vector<std::string> shown;
  for (const auto& name : names) {
    if (shown.size() == kShown) break;
    shown.push_back(printable(name));
  }
  return fmt::format("{}{}", fmt::join(shown, ", "), names.size() > kShown ? ", ..." : "");
}

// 5 of "model-00002-of-00005.safetensors"; none for another name. A GGUF file says it itself.
std::optional<int> shards_of(std::string_view name) {
  constexpr std::string_view kPattern = "-00000-of-00000";
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos || dot < kPattern.size() || name.substr(dot) == ".gguf") {
    return std::nullopt;
  }
  const auto end = name.substr(dot - kPattern.size(), kPattern.size());
  const bool fits = std::ranges::equal(end, kPattern, [](char c, char pattern) {
    return pattern == '0' ? std::isdigit(static_cast<unsigned char>(c)) != 0 : c == pattern;
  });
  return fits ? std::optional(std::stoi(std::string(end.substr(end.size() - 5)))) : std::nullopt;
}

void refuse_cache(const fs::path& directory, const std::set<std::string>& names) {
  if (names.contains("snapshots")) {
    const auto snapshots = names_in(directory / "snapshots");
    refuse_file(
        directory.string(),
        fmt::format("is a folder of Hugging Face's download cache: give the model in it, {}",
                    snapshots.size() == 1 ? (directory / "snapshots" / *snapshots.begin()).string()
                                          : "one of snapshots/: " + list_of(snapshots)));
  }
  const auto model = std::ranges::find_if(
      names, [](const std::string& name) { return name.starts_with("models--"); });
  if (model == names.end()) return;
  refuse_file(directory.string(),
              fmt::format("is Hugging Face's download cache: give a folder of snapshots/ in it, as "
                          "of {}",
                          (directory / *model / "snapshots").string()));
}

}  // namespace

void refuse_shard(const fs::path& file) {
  std::error_code unknown;
  if (!fs::is_regular_file(file, unknown)) return;
  const auto name = file.filename().string();
  const auto directory = file.has_parent_path() ? file.parent_path().string() : ".";
  if (name.ends_with(".index.json")) {
    refuse_file(file.string(),
                fmt::format("is the index of a model's shards: give the directory, {}", directory));
  }
  const auto shards = shards_of(name);
  if (shards && *shards > 1) {
    refuse_file(file.string(), fmt::format("is one shard of {}, a part of a model: give the "
                                           "directory with all of them and their index, {}",
                                           *shards, directory));
  }
}

void refuse_directory(const fs::path& directory) {
  const auto names = names_in(directory);
  if (has_adapter(directory)) {
    refuse_file(directory.string(),
                fmt::format("is an adapter, such as LoRA, without a model: {}", kMerge));
  }
  refuse_cache(directory, names);
  std::set<std::string> weights;
  for (const auto& name : names) {
    if (shards_of(name)) {
      refuse_file(
          directory.string(),
          fmt::format("has shards ({}), but not their index: download {} too", printable(name),
                      name.ends_with(".safetensors") ? "model.safetensors.index.json"
                                                     : "pytorch_model.bin.index.json"));
    }
    const bool is_file = std::ranges::any_of(
        kEndings, [&name](std::string_view ending) { return name.ends_with(ending); });
    if (is_file) weights.insert(name);
  }
  constexpr std::string_view kWanted = "model.safetensors, pytorch_model.bin or their index";
  if (!weights.empty()) {
    refuse_file(directory.string(), fmt::format("is a directory without {}: give the file you "
                                                "mean, of {}",
                                                kWanted, list_of(weights)));
  }
  refuse_file(directory.string(),
              fmt::format("is a directory without {}; it holds {}: give a file of weights, or a "
                          "directory that has them",
                          kWanted, names.empty() ? "nothing" : list_of(names)));
}

void refuse_adapter(const fs::path& file, const std::vector<TensorEntry>& tensors) {
  const auto is_factor = [](const TensorEntry& entry) {
    return entry.name.find("lora_") != std::string::npos;
  };
  const auto is_part = [&](const TensorEntry& entry) {
    return is_factor(entry) || entry.name.starts_with("base_model.");
  };
  if (std::ranges::any_of(tensors, is_factor) && std::ranges::all_of(tensors, is_part)) {
    refuse_file(file.string(), fmt::format("is a LoRA adapter, not a model: {}", kMerge));
  }
}

void refuse_adapter_beside(const fs::path& path) {
  std::error_code unknown;
  if (!fs::is_directory(path, unknown) || !has_adapter(path)) return;
  refuse_file(path.string(),
              fmt::format("has an adapter ({}) beside the model, which would not be applied: {}; "
                          "or move it away to use the model without it",
                          fmt::join(kAdapterFiles, ", "), kMerge));
}

}  // namespace gemma
