#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <gemma/checkpoint/npy_writer.h>
#include <gemma/checkpoint/output_directory.h>
#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/cli/activation_shards.h>
#include <gemma/cli/json_text.h>

namespace gemma::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndex = "index.json";

[[noreturn]] void refuse_directory(const fs::path& path, std::string_view what) {
  throw std::runtime_error(fmt::format("--out {}: {}", path.string(), what));
}

// What one run says and another does not.
std::string difference(const nlohmann::ordered_json& there, const nlohmann::ordered_json& here) {
  for (const auto& [name, value] : here.items()) {
    if (!there.contains(name)) return fmt::format("it does not say its {}", name);
    if (there[name] == value) continue;
    return fmt::format("its {} is {}, this one's {}", name, to_json(there[name]), to_json(value));
  }
  return "it says more";
}

}  // namespace

void ActivationShard::add(int64_t text,
                          std::span<const int64_t> tokens,
                          Activations::Values values) {
  ++texts_;
  for (size_t i = 0; i < tokens.size(); ++i) {
    token_ids_.push_back(tokens[i]);
    text_.push_back(text);
    position_.push_back(static_cast<int64_t>(i));
  }
  for (auto& [name, value] : values) {
    const auto key = is_of_token_pairs(name) ? fmt::format("{}/{}", name, text) : name;
    parts_[key].push_back(value.to(at::kCPU, dtype_.value_or(value.scalar_type())));
  }
}

template <typename Use>
void ActivationShard::for_each(const Use& use) const {
  use("token_ids", at::tensor(token_ids_, at::kLong));
  use("text", at::tensor(text_, at::kLong));
  use("position", at::tensor(position_, at::kLong));
  for (const auto& [name, parts] : parts_) use(name, at::cat(parts));
}

void ActivationShard::write_safetensors(const fs::path& path) const {
  const auto count = tokens();
  std::vector<TensorSpec> specs{{"token_ids", at::kLong, {count}},
                                {"text", at::kLong, {count}},
                                {"position", at::kLong, {count}}};
  for (const auto& [name, parts] : parts_) {
    auto sizes = parts.front().sizes().vec();
    if (!is_of_token_pairs(name.substr(0, name.rfind('/')))) sizes.front() = count;
    specs.push_back({name, parts.front().scalar_type(), std::move(sizes)});
  }
  SafetensorsWriter file(path, std::move(specs), /*overwrite=*/true);
  for_each([&](const std::string& name, const at::Tensor& values) { file.add(name, values); });
  file.finish();
}

void ActivationShard::write_npy(const fs::path& path) const {
  OutputDirectory directory(path, /*overwrite=*/true, "token_ids.npy");
  for_each([&](const std::string& name, const at::Tensor& values) {
    const auto file = directory.part() / (name + ".npy");
    fs::create_directories(file.parent_path());
    gemma::write_npy(file, values.scalar_type() == at::kBFloat16 ? values.to(at::kFloat) : values);
  });
  directory.commit();
}

ActivationDirectory::ActivationDirectory(const fs::path& path, nlohmann::ordered_json run)
    : path_(path) {
  std::error_code failed;
  fs::create_directories(path_, failed);
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) refuse_directory(path_, fmt::format("is no directory: {}", std::strerror(errno)));
  try {
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) refuse_directory(path_, "another run writes to it");
    index_ = {{"run", std::move(run)}, {"shards", nlohmann::ordered_json::array()}};
    if (fs::exists(path_ / kIndex)) {
      read_index();
    } else if (!fs::is_empty(path_)) {
      refuse_directory(path_, "has files, but no index.json of an earlier run; name another one");
    } else {
      write_index();
    }
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

ActivationDirectory::~ActivationDirectory() { ::close(lock_); }

void ActivationDirectory::read_index() {
  std::ifstream file(path_ / kIndex);
  auto index = nlohmann::ordered_json::parse(file, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("run") || !index.contains("shards") ||
      !index["shards"].is_array()) {
    refuse_directory(path_, "its index.json is not one of this program; name another directory");
  }
  if (index["run"] != index_["run"]) {
    refuse_directory(path_, fmt::format("is of another run: {}; name another directory",
                                        difference(index["run"], index_["run"])));
  }
  for (const auto& shard : index["shards"]) {
    if (!shard.is_object() || !shard.contains("texts") || !shard["texts"].is_number_unsigned()) {
      refuse_directory(path_, "its index.json is damaged; name another directory");
    }
    texts_done_ += shard["texts"].get<int64_t>();
  }
  index_ = std::move(index);
}

void ActivationDirectory::write_index() const {
  OutputFile index(path_ / kIndex, /*overwrite=*/true);
  const auto text = to_json(index_, /*indent=*/1) + "\n";
  index.write(std::as_bytes(std::span(text)));
  index.commit();
}

void ActivationDirectory::write(const ActivationShard& shard, bool as_npy) {
  const auto name = fmt::format("{:05}{}", index_["shards"].size(), as_npy ? "" : ".safetensors");
  as_npy ? shard.write_npy(path_ / name) : shard.write_safetensors(path_ / name);
  index_["shards"].push_back(
      {{"file", name}, {"texts", shard.texts()}, {"tokens", shard.tokens()}});
  write_index();
  texts_done_ += shard.texts();
}

}  // namespace gemma::cli
