#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/checkpoint/not_a_model.h>
#include <gemma/checkpoint/npz.h>
#include <gemma/checkpoint/safetensors.h>
#include <gemma/checkpoint/shard_index.h>
#include <gemma/checkpoint/torch_archive.h>

namespace gemma {

namespace {

// What makes a directory a checkpoint, in the order in which it is looked for.
constexpr std::array<std::string_view, 4> kFilesInDirectory = {
    "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
    "pytorch_model.bin"};

// By what is in it; the name counts where that leaves a doubt, for a message that helps.
bool is_to_be_safetensors(const MappedFile& file) {
  if (as_text(file.bytes()).starts_with("PK")) return false;
  return is_safetensors(file.bytes()) || file.path().ends_with(".safetensors");
}

at::Tensor make_view(const std::shared_ptr<const MappedFile>& file, const TensorEntry& entry) {
  const auto options = at::TensorOptions().dtype(entry.dtype);
  return at::from_blob(
      file->data() + entry.offset, entry.sizes, entry.strides, [keep_alive = file](void*) {},
      options);
}

at::Tensor make_copy(const MappedFile& file, const TensorEntry& entry, size_t itemsize) {
  const auto elements = static_cast<int64_t>(entry.nbytes / itemsize);
  const at::Tensor flat = at::empty({elements}, at::TensorOptions().dtype(entry.dtype));
  std::memcpy(flat.mutable_data_ptr(), file.data() + entry.offset, entry.nbytes);
  return flat.as_strided(entry.sizes, entry.strides);
}

// torch.save aligns records to 64 bytes, other writers of zip archives do not.
at::Tensor plain_tensor(const std::shared_ptr<const MappedFile>& file, const TensorEntry& entry) {
  const size_t itemsize = c10::elementSize(entry.dtype);
  const bool is_aligned = entry.offset % itemsize == 0;  // A mapping begins at a page.
  return is_aligned || entry.nbytes == 0 ? make_view(file, entry)
                                         : make_copy(*file, entry, itemsize);
}

// `count` rows of a plain tensor from `first`, as a tensor of the same file.
TensorEntry rows_of(const TensorEntry& entry, int64_t first, int64_t count) {
  const size_t itemsize = c10::elementSize(entry.dtype);
  TensorEntry rows = entry;
  rows.sizes[0] = count;
  rows.offset += static_cast<uint64_t>(first * entry.strides[0]) * itemsize;
  const int64_t skipped = (entry.sizes[0] - count) * entry.strides[0];
  const bool is_empty = entry.nbytes == 0 || count == 0;
  rows.nbytes = is_empty ? 0 : entry.nbytes - static_cast<uint64_t>(skipped) * itemsize;
  return rows;
}

// The numbers of `count` rows from `first`, in memory of their own. Whole blocks, because a row is.
at::Tensor dequantized_rows(const MappedFile& file,
                            const TensorEntry& entry,
                            int64_t first,
                            int64_t count) {
  auto sizes = entry.sizes;
  sizes[0] = count;
  const at::Tensor rows = at::empty(sizes, at::TensorOptions().dtype(entry.dtype));
  if (rows.numel() == 0) return rows;
  const auto row_bytes = entry.nbytes / static_cast<uint64_t>(entry.sizes[0]);
  dequantize(entry.encoding,
             file.bytes().subspan(entry.offset + static_cast<uint64_t>(first) * row_bytes,
                                  static_cast<uint64_t>(count) * row_bytes),
             {rows.mutable_data_ptr<float>(), static_cast<size_t>(rows.numel())});
  return rows;
}

}  // namespace

struct Checkpoint::Contents {
  std::string path;
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::optional<GgufMetadata> metadata;         // Views of the files.
  std::optional<std::string_view> config_json;  // Likewise; of several files that of any.
  std::vector<TensorEntry> entries;
  std::vector<size_t> file_of_entry;         // As long as `entries`: index of its file.
  std::map<std::string_view, size_t> index;  // Once `entries` is complete: views of it.

  const std::shared_ptr<const MappedFile>& file(size_t entry) const {
    return files[file_of_entry[entry]];
  }

  std::vector<TensorEntry> read_any_file(const MappedFile& mapped) {
    if (is_gguf(mapped.bytes())) {
      GgufFile gguf = read_gguf(mapped.bytes(), mapped.path());
      metadata = std::move(gguf.metadata);
      return std::move(gguf.tensors);
    }
    if (is_npy(mapped.bytes())) return {read_npy(mapped.bytes(), mapped.path())};
    if (is_npz(mapped.bytes())) return read_npz(mapped.bytes(), mapped.path());
    if (is_to_be_safetensors(mapped)) return read_safetensors(mapped.bytes(), mapped.path());
    TorchArchive archive = read_torch_archive(mapped.bytes(), mapped.path());
    config_json = archive.config;
    return std::move(archive.tensors);
  }

  void add_file(const std::filesystem::path& file_path) {
    auto mapped = std::make_shared<const MappedFile>(file_path);
    std::vector<TensorEntry> found = read_any_file(*mapped);
    file_of_entry.insert(file_of_entry.end(), found.size(), files.size());
    std::ranges::move(found, std::back_inserter(entries));
    files.push_back(std::move(mapped));
  }

  void make_index() {
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto [known, is_new] = index.try_emplace(entries[i].name, i);
      if (!is_new) {
        refuse_file(file(i)->path(),
                    fmt::format("has a tensor '{}', and so has {}: which one is meant?",
                                printable(entries[i].name), file(known->second)->path()));
      }
    }
  }

  void add_shards(const std::filesystem::path& directory, std::string_view index_name) {
    const MappedFile index_file(directory / index_name);
    const auto weight_map = read_shard_index(as_text(index_file.bytes()), index_file.path());
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
    for (const std::string& shard : shards) {
      const std::filesystem::path shard_path = directory / shard;
      std::error_code unknown;
      if (!std::filesystem::exists(shard_path, unknown)) {
        throw FileNotFound(about_file(
            shard_path.string(),
            fmt::format("there is no such file, but {} names it: download it", index_name)));
      }
      add_file(shard_path);
    }
    make_index();
    for (const auto& [tensor, shard] : weight_map) {
      const auto found = index.find(tensor);
      const std::string shard_path = (directory / shard).string();
      if (found == index.end() || file(found->second)->path() != shard_path) {
        refuse_file(shard_path,
                    fmt::format("has no tensor '{}', but {} says so: download both again",
                                printable(tensor), index_name));
      }
    }
  }

  void add_directory(const std::filesystem::path& directory) {
    for (const auto name : kFilesInDirectory) {
      std::error_code unknown;
      if (!std::filesystem::exists(directory / name, unknown)) continue;
      if (name.ends_with(".json")) return add_shards(directory, name);
      add_file(directory / name);
      return make_index();
    }
    refuse_directory(directory);
  }

  void add(const std::filesystem::path& given) {
    std::error_code unknown;  // MappedFile explains what cannot be looked at.
    if (std::filesystem::is_directory(given, unknown)) return add_directory(given);
    add_file(given);
    make_index();
    refuse_adapter(given, entries);
  }
};

Checkpoint::Checkpoint(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}

Checkpoint Checkpoint::open(const std::filesystem::path& path) {
  auto contents = std::make_shared<Contents>();
  contents->path = path.string();
  contents->add(path);
  return Checkpoint(std::move(contents));
}

const std::vector<TensorEntry>& Checkpoint::entries() const { return contents_->entries; }

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto found = contents_->index.find(name);
  return found == contents_->index.end() ? nullptr : &contents_->entries[found->second];
}

size_t Checkpoint::index_of(std::string_view name) const {
  const auto found = contents_->index.find(name);
  if (found == contents_->index.end()) {
    refuse_file(contents_->path, fmt::format("has no tensor '{}'", printable(name)));
  }
  return found->second;
}

at::Tensor Checkpoint::tensor(std::string_view name) const {
  const size_t i = index_of(name);
  const TensorEntry& entry = contents_->entries[i];
  if (entry.encoding != Encoding::kPlain) {
    return dequantized_rows(*contents_->file(i), entry, /*first=*/0, entry.sizes[0]);
  }
  return plain_tensor(contents_->file(i), entry);
}

at::Tensor Checkpoint::rows(std::string_view name, int64_t first, int64_t count) const {
  const size_t i = index_of(name);
  const TensorEntry& entry = contents_->entries[i];
  if (entry.sizes.empty() || first < 0 || count < 0 || count > entry.sizes[0] - first) {
    throw std::out_of_range(
        fmt::format("Checkpoint: '{}' has no rows {} to {}", name, first, first + count));
  }
  if (entry.encoding == Encoding::kPlain) {
    return plain_tensor(contents_->file(i), rows_of(entry, first, count));
  }
  return dequantized_rows(*contents_->file(i), entry, first, count);
}

at::Tensor Checkpoint::blocks(std::string_view name) const {
  const size_t i = index_of(name);
  auto entry = contents_->entries[i];
  if (entry.encoding == Encoding::kPlain) {
    throw std::invalid_argument(fmt::format("Checkpoint: '{}' stands in no blocks", name));
  }
  entry.dtype = at::kByte;
  entry.sizes = {static_cast<int64_t>(entry.nbytes)};
  entry.strides = {1};
  return plain_tensor(contents_->file(i), entry);
}

const GgufMetadata* Checkpoint::metadata() const {
  return contents_->metadata ? &*contents_->metadata : nullptr;
}

std::optional<std::string_view> Checkpoint::config_json() const {
  return contents_->files.size() == 1 ? contents_->config_json : std::nullopt;
}

void Checkpoint::release(std::string_view name) const {
  const size_t i = index_of(name);
  contents_->file(i)->release(contents_->entries[i].offset, contents_->entries[i].nbytes);
}

const std::string& Checkpoint::file_of(std::string_view name) const {
  return contents_->file(index_of(name))->path();
}

const std::string& Checkpoint::path() const { return contents_->path; }

}  // namespace gemma
