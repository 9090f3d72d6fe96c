#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/checkpoint/shard_index.h>

namespace gemma {

namespace {

[[noreturn]] void refuse(std::string_view path, std::string_view what) {
  throw std::runtime_error(about_file(path, what));
}

std::string list_of_files(const std::filesystem::path& directory) {
  constexpr size_t kShown = 10;
  std::set<std::string> names;
  std::error_code unreadable;
  for (const auto& file : std::filesystem::directory_iterator(directory, unreadable)) {
    names.insert(printable(file.path().filename().string()));
  }
  if (names.empty()) return "nothing";
  const auto last =
      std::next(names.begin(), static_cast<std::ptrdiff_t>(std::min(names.size(), kShown)));
  return fmt::format("{}{}", fmt::join(names.begin(), last, ", "),
                     names.size() > kShown ? ", ..." : "");
}

at::Tensor make_view(const std::shared_ptr<const MappedFile>& file, const TensorEntry& entry) {
  const auto options = at::TensorOptions().dtype(entry.dtype);
  return at::from_blob(
      file->data() + entry.offset, entry.sizes, entry.strides, [keep_alive = file](void*) {},
      options);
}

// torch.save aligns records to 64 bytes, other writers of zip archives do not.
at::Tensor make_copy(const MappedFile& file, const TensorEntry& entry, size_t itemsize) {
  const auto elements = static_cast<int64_t>(entry.nbytes / itemsize);
  const at::Tensor flat = at::empty({elements}, at::TensorOptions().dtype(entry.dtype));
  std::memcpy(flat.mutable_data_ptr(), file.data() + entry.offset, entry.nbytes);
  return flat.as_strided(entry.sizes, entry.strides);
}

}  // namespace

struct Checkpoint::Contents {
  std::string path;
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<TensorEntry> entries;
  std::vector<size_t> file_of_entry;         // As long as `entries`: index of its file.
  std::map<std::string_view, size_t> index;  // Once `entries` is complete: views of it.

  const std::shared_ptr<const MappedFile>& file(size_t entry) const {
    return files[file_of_entry[entry]];
  }

  void add_file(const std::filesystem::path& file_path) {
    auto mapped = std::make_shared<const MappedFile>(file_path);
    std::vector<TensorEntry> found = read_torch_archive(mapped->bytes(), mapped->path());
    file_of_entry.insert(file_of_entry.end(), found.size(), files.size());
    std::ranges::move(found, std::back_inserter(entries));
    files.push_back(std::move(mapped));
  }

  void make_index() {
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto [known, is_new] = index.try_emplace(entries[i].name, i);
      if (!is_new) {
        refuse(file(i)->path(),
               fmt::format("has a tensor '{}', and so has {}: which one is meant?",
                           printable(entries[i].name), file(known->second)->path()));
      }
    }
  }

  void add_shards(const std::filesystem::path& directory) {
    const MappedFile index_file(directory / kShardIndexName);
    const auto weight_map = read_shard_index(as_text(index_file.bytes()), index_file.path());
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
    for (const std::string& shard : shards) {
      const std::filesystem::path shard_path = directory / shard;
      std::error_code unknown;
      if (!std::filesystem::exists(shard_path, unknown)) {
        throw FileNotFound(about_file(
            shard_path.string(),
            fmt::format("there is no such file, but {} names it: download it", kShardIndexName)));
      }
      add_file(shard_path);
    }
    make_index();
    for (const auto& [tensor, shard] : weight_map) {
      const auto found = index.find(tensor);
      const std::string shard_path = (directory / shard).string();
      if (found == index.end() || file(found->second)->path() != shard_path) {
        refuse(shard_path, fmt::format("has no tensor '{}', but {} says so: download both again",
                                       printable(tensor), kShardIndexName));
      }
    }
  }
};

Checkpoint::Checkpoint(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}

Checkpoint Checkpoint::open(const std::filesystem::path& path) {
  auto contents = std::make_shared<Contents>();
  contents->path = path.string();
  std::error_code unknown;  // MappedFile explains what cannot be looked at.
  if (!std::filesystem::is_directory(path, unknown)) {
    contents->add_file(path);
    contents->make_index();
  } else if (std::filesystem::exists(path / kShardIndexName, unknown)) {
    contents->add_shards(path);
  } else {
    refuse(contents->path,
           fmt::format("is a directory without {}; it holds {}: pass the .ckpt file",
                       kShardIndexName, list_of_files(path)));
  }
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
    refuse(contents_->path, fmt::format("has no tensor '{}'", printable(name)));
  }
  return found->second;
}

at::Tensor Checkpoint::tensor(std::string_view name) const {
  const size_t i = index_of(name);
  const TensorEntry& entry = contents_->entries[i];
  const size_t itemsize = c10::elementSize(entry.dtype);
  const bool is_aligned = entry.offset % itemsize == 0;  // A mapping begins at a page.
  return is_aligned || entry.nbytes == 0 ? make_view(contents_->file(i), entry)
                                         : make_copy(*contents_->file(i), entry, itemsize);
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
