#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include <gemma/checkpoint/zip.h>

namespace gemma {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;

constexpr uint64_t kLocalHeaderSize = 30;
constexpr uint64_t kCentralHeaderSize = 46;
constexpr uint64_t kEndSize = 22;
constexpr uint64_t kEnd64Size = 56;
constexpr uint64_t kEnd64LocatorSize = 20;

// A field with all bits set has its value in a 64-bit twin elsewhere.
constexpr uint16_t kElsewhere16 = 0xffff;
constexpr uint32_t kElsewhere32 = 0xffffffff;

constexpr uint16_t kEncrypted = 0x2041;  // Flag bits 0, 6 and 13: three ways to encrypt.
constexpr uint16_t kSizesFollow = 0x0008;

struct Directory {
  uint64_t offset;
  uint64_t size;
  uint64_t entries;
};

// One entry as the central directory describes it.
struct Header {
  std::string_view name;
  uint16_t flags;
  uint16_t method;
  uint64_t stored_size;
  uint64_t size;
  uint64_t local_offset;
};

// The bytes an entry occupies, its local header included.
struct Extent {
  uint64_t begin;
  uint64_t end;
  std::string_view name;
};

// The end record is the last thing in the file but for a comment of at most 64 KiB.
uint64_t find_end_record(Bytes file) {
  constexpr uint64_t kMaxComment = 0xffff;
  if (file.size() >= kEndSize) {
    const uint64_t last = file.size() - kEndSize;
    const uint64_t first = last - std::min(last, kMaxComment);
    for (uint64_t at = last + 1; at-- > first;) {
      if (load<uint32_t>(file, at, "end record") == kEnd &&
          load<uint16_t>(file, at + 20, "end record") == file.size() - at - kEndSize) {
        return at;
      }
    }
  }
  format_error(
      "the end of the zip archive is missing: the file is truncated (an incomplete download?) or "
      "has bytes appended to it; download it again");
}

template <typename Narrow>
void check_agrees(Narrow narrow, Narrow elsewhere, uint64_t wide, std::string_view what) {
  if (narrow != elsewhere && narrow != wide) {
    format_error("its zip end records disagree about the {}: {} and {}", what, narrow, wide);
  }
}

std::optional<uint64_t> find_end64_record(Bytes file, uint64_t end) {
  if (end < kEnd64LocatorSize) return std::nullopt;
  const uint64_t locator = end - kEnd64LocatorSize;
  if (load<uint32_t>(file, locator, "zip64 locator") != kEnd64Locator) return std::nullopt;
  const auto at = load<uint64_t>(file, locator + 8, "zip64 locator");
  if (!fits(at, kEnd64Size, locator) || load<uint32_t>(file, at, "zip64 end") != kEnd64) {
    format_error("its zip64 locator points to byte {}, where no zip64 end record is", at);
  }
  if (load<uint32_t>(file, locator + 4, "zip64 locator") != 0 ||
      load<uint32_t>(file, locator + 16, "zip64 locator") > 1) {
    format_error("it is one part of a zip archive split over several disks");
  }
  return at;
}

Directory read_directory_position(Bytes file) {
  const uint64_t end = find_end_record(file);
  const Bytes record = file.subspan(end, kEndSize);
  const auto disk = load<uint16_t>(record, 4, "end record");
  const auto directory_disk = load<uint16_t>(record, 6, "end record");
  const auto entries_here = load<uint16_t>(record, 8, "end record");
  const auto entries = load<uint16_t>(record, 10, "end record");
  const auto size = load<uint32_t>(record, 12, "end record");
  const auto offset = load<uint32_t>(record, 16, "end record");
  const bool one_disk = (disk == 0 || disk == kElsewhere16) &&
                        (directory_disk == 0 || directory_disk == kElsewhere16);
  if (!one_disk || entries_here != entries) {
    format_error("it is one part of a zip archive split over several disks");
  }

  const std::optional<uint64_t> end64 = find_end64_record(file, end);
  Directory directory{.offset = offset, .size = size, .entries = entries};
  if (end64) {
    const Bytes record64 = file.subspan(*end64, kEnd64Size);
    directory = {.offset = load<uint64_t>(record64, 48, "zip64 end"),
                 .size = load<uint64_t>(record64, 40, "zip64 end"),
                 .entries = load<uint64_t>(record64, 32, "zip64 end")};
    check_agrees(entries, kElsewhere16, directory.entries, "number of entries");
    check_agrees(size, kElsewhere32, directory.size, "directory's size");
    check_agrees(offset, kElsewhere32, directory.offset, "directory's position");
  }
  if (!fits(directory.offset, directory.size, end64.value_or(end))) {
    format_error("its zip directory would take bytes {}+{} of {}: the file is damaged",
                 directory.offset, directory.size, file.size());
  }
  if (directory.entries > directory.size / kCentralHeaderSize) {
    format_error("its zip directory of {} bytes claims {} entries: the file is damaged",
                 directory.size, directory.entries);
  }
  return directory;
}

// Field 1 of `extra` holds the 64-bit values, in this order, of those that are kElsewhere32.
void read_zip64_values(Header& header, Bytes extra) {
  for (uint64_t at = 0; at + 4 <= extra.size();) {
    const auto tag = load<uint16_t>(extra, at, "extra field");
    const auto size = load<uint16_t>(extra, at + 2, "extra field");
    const Bytes field = slice(extra, at + 4, size, "an extra field of its zip directory");
    at += 4 + uint64_t{size};
    if (tag != 1) continue;
    uint64_t next = 0;
    for (uint64_t* value : {&header.size, &header.stored_size, &header.local_offset}) {
      if (*value != kElsewhere32) continue;
      *value = load<uint64_t>(field, next, "a zip64 value");
      next += 8;
    }
    return;
  }
}

// Moves `at` to the next header.
Header read_central_header(Bytes directory, uint64_t& at) {
  const Bytes fixed =
      slice(directory, at, kCentralHeaderSize, "a header of its zip directory (entry count?)");
  if (load<uint32_t>(fixed, 0, "header") != kCentralHeader) {
    format_error("its zip directory is damaged at byte {} of {}", at, directory.size());
  }
  const auto name_size = load<uint16_t>(fixed, 28, "header");
  const auto extra_size = load<uint16_t>(fixed, 30, "header");
  const auto comment_size = load<uint16_t>(fixed, 32, "header");
  const Bytes name =
      slice(directory, at + kCentralHeaderSize, name_size, "a name in its directory");
  const uint64_t extra_at = at + kCentralHeaderSize + name_size;
  const Bytes extra = slice(directory, extra_at, extra_size, "an extra field in its directory");
  at = extra_at + extra_size + comment_size;

  Header header{.name = as_text(name),
                .flags = load<uint16_t>(fixed, 8, "header"),
                .method = load<uint16_t>(fixed, 10, "header"),
                .stored_size = load<uint32_t>(fixed, 20, "header"),
                .size = load<uint32_t>(fixed, 24, "header"),
                .local_offset = load<uint32_t>(fixed, 42, "header")};
  read_zip64_values(header, extra);
  const auto disk = load<uint16_t>(fixed, 34, "header");
  if (disk != 0 && disk != kElsewhere16) {
    format_error("its entry '{}' is on another disk of a split zip archive",
                 printable(header.name));
  }
  return header;
}

void check_is_plain(const Header& header, uint16_t flags, uint16_t method) {
  if ((flags & kEncrypted) != 0) {
    format_error("its entry '{}' is encrypted, which no writer of weights does",
                 printable(header.name));
  }
  if (method != 0) {
    format_error(
        "its entry '{}' is compressed (zip method {}), so it cannot be mapped: torch.jit.save and "
        "numpy.savez_compressed do that. Load it in Python and torch.save its state_dict(), or "
        "numpy.savez its arrays",
        printable(header.name), method);
  }
}

// The local header's own name and extra field, not the directory's, decide where the data begins:
// torch.save pads the former to align the latter.
uint64_t find_data(Bytes file, const Header& header) {
  const std::string what = fmt::format("its entry '{}'", printable(header.name));
  const Bytes local = slice(file, header.local_offset, kLocalHeaderSize, what);
  if (load<uint32_t>(local, 0, what) != kLocalHeader) {
    format_error("{} has no header at byte {}: the file is damaged", what, header.local_offset);
  }
  const auto flags = load<uint16_t>(local, 6, what);
  check_is_plain(header, flags, load<uint16_t>(local, 8, what));
  const auto size = load<uint32_t>(local, 22, what);
  const auto name_size = load<uint16_t>(local, 26, what);
  const auto extra_size = load<uint16_t>(local, 28, what);
  const uint64_t name_at = header.local_offset + kLocalHeaderSize;
  const std::string_view name = as_text(slice(file, name_at, name_size, what));
  if (name != header.name) {
    format_error("{} calls itself '{}' in its own header: the file is damaged", what,
                 printable(name));
  }
  if ((flags & kSizesFollow) == 0 && size != header.size && size != kElsewhere32) {
    format_error("{} has {} bytes in the directory and {} in its own header: the file is damaged",
                 what, header.size, size);
  }
  return name_at + name_size + extra_size;
}

void check_disjoint(std::vector<Extent> extents) {
  std::ranges::sort(extents, {}, &Extent::begin);
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      format_error("its entries '{}' and '{}' overlap: the file is damaged or was made to mislead",
                   printable(extents[i - 1].name), printable(extents[i].name));
    }
  }
}

}  // namespace

std::vector<ZipEntry> read_zip_directory(Bytes file) {
  const Directory position = read_directory_position(file);
  const Bytes directory = file.subspan(position.offset, position.size);
  std::vector<ZipEntry> entries;
  std::vector<Extent> extents;
  std::set<std::string_view> names;  // Ordered: a file can choose names that all hash alike.
  uint64_t at = 0;
  for (uint64_t i = 0; i < position.entries; ++i) {
    const Header header = read_central_header(directory, at);
    check_is_plain(header, header.flags, header.method);
    if (header.stored_size != header.size) {
      format_error("its entry '{}' is stored, yet has {} bytes in {}: the file is damaged",
                   printable(header.name), header.size, header.stored_size);
    }
    if (!names.insert(header.name).second) {
      format_error("it has two entries named '{}'", printable(header.name));
    }
    const uint64_t data = find_data(file, header);
    if (!fits(data, header.size, position.offset)) {
      format_error("its entry '{}' would take bytes {}+{}, but the data ends at {}: truncated?",
                   printable(header.name), data, header.size, position.offset);
    }
    extents.push_back({header.local_offset, data + header.size, header.name});
    entries.push_back({std::string(header.name), data, header.size});
  }
  if (at != directory.size()) {
    format_error("its zip directory has {} bytes after its {} entries: the file is damaged",
                 directory.size() - std::min<uint64_t>(at, directory.size()), position.entries);
  }
  check_disjoint(std::move(extents));
  return entries;
}

}  // namespace gemma
