#include <algorithm>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/crc32.h>
#include <gemma/checkpoint/zip_writer.h>

// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
namespace gemma {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;

constexpr uint64_t kLocalHeaderSize = 30;
constexpr uint64_t kCrcOffset = 14;  // In the local header.
constexpr uint64_t kAlignment = 64;

constexpr uint16_t kVersion = 20;
constexpr uint16_t kVersion64 = 45;
constexpr uint16_t kUtf8Names = 0x0800;
constexpr uint16_t kStored = 0;
constexpr uint16_t kTime = 0;
constexpr uint16_t kDate = 0x0021;  // 1 January 1980: the same tensors give the same file.
constexpr uint16_t kZip64Field = 1;
constexpr uint16_t kPaddingField = 0x4246;  // "FB", as in caffe2/serialize/inline_container.cc.

// A field with all bits set has its value in a 64-bit twin elsewhere.
constexpr uint16_t kElsewhere16 = 0xffff;
constexpr uint32_t kElsewhere32 = 0xffffffff;

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

Bytes as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

bool is_wide(uint64_t value) { return value >= kElsewhere32; }

uint32_t narrow32(uint64_t value) {
  return is_wide(value) ? kElsewhere32 : static_cast<uint32_t>(value);
}

uint16_t narrow16(uint64_t value) {
  return static_cast<uint16_t>(std::min<uint64_t>(value, kElsewhere16));
}

// What both kinds of header have in common, from the flags to the sizes.
void append_entry(std::string& out, uint32_t crc, uint64_t size) {
  append(out, kUtf8Names);
  append(out, kStored);
  append(out, kTime);
  append(out, kDate);
  append(out, crc);
  append(out, narrow32(size));
  append(out, narrow32(size));
}

// For an entry at `offset`; the checksum follows when the data is known.
std::string local_header(std::string_view name, uint64_t size, uint64_t offset) {
  std::string extra;
  if (is_wide(size)) {
    append(extra, kZip64Field);
    append(extra, uint16_t{16});
    append(extra, size);
    append(extra, size);
  }
  constexpr uint64_t kFieldHeader = 4;
  const uint64_t data = offset + kLocalHeaderSize + name.size() + extra.size() + kFieldHeader;
  const uint64_t padding = (kAlignment - data % kAlignment) % kAlignment;
  append(extra, kPaddingField);
  append(extra, static_cast<uint16_t>(padding));
  extra.append(padding, 'Z');

  std::string header;
  append(header, kLocalHeader);
  append(header, is_wide(size) ? kVersion64 : kVersion);
  append_entry(header, /*crc=*/0, size);
  append(header, static_cast<uint16_t>(name.size()));
  append(header, static_cast<uint16_t>(extra.size()));
  return header.append(name).append(extra);
}

void append_central_header(
    std::string& out, std::string_view name, uint32_t crc, uint64_t size, uint64_t offset) {
  std::string values;
  if (is_wide(size)) {
    append(values, size);
    append(values, size);
  }
  if (is_wide(offset)) append(values, offset);
  std::string extra;
  if (!values.empty()) {
    append(extra, kZip64Field);
    append(extra, static_cast<uint16_t>(values.size()));
    extra += values;
  }
  const uint16_t version = extra.empty() ? kVersion : kVersion64;
  append(out, kCentralHeader);
  append(out, version);  // Made by, and below: needed to read it.
  append(out, version);
  append_entry(out, crc, size);
  append(out, static_cast<uint16_t>(name.size()));
  append(out, static_cast<uint16_t>(extra.size()));
  append(out, uint16_t{0});  // No comment,
  append(out, uint16_t{0});  // on the first disk,
  append(out, uint16_t{0});  // no internal
  append(out, uint32_t{0});  // and no external attributes.
  append(out, narrow32(offset));
  out.append(name).append(extra);
}

}  // namespace

void ZipWriter::add(std::string_view name, Bytes data) {
  const uint64_t header = file_.size();
  file_.write(as_bytes(local_header(name, data.size(), header)));
  // In pieces that are still in the cache when they are written.
  constexpr size_t kPiece = size_t{1} << 20;
  uint32_t crc = 0;
  for (Bytes rest = data; !rest.empty();) {
    const Bytes piece = rest.first(std::min(kPiece, rest.size()));
    crc = crc32(piece, crc);
    file_.write(piece);
    rest = rest.subspan(piece.size());
  }
  file_.write_at(header + kCrcOffset, std::as_bytes(std::span(&crc, 1)));
  append_central_header(directory_, name, crc, data.size(), header);
  ++entries_;
}

void ZipWriter::finish() {
  const uint64_t offset = file_.size();
  const uint64_t size = directory_.size();
  file_.write(as_bytes(directory_));
  // Also where the numbers would fit the old records: so does torch.save.
  std::string end;
  append(end, kEnd64);
  append(end, uint64_t{44});  // What follows of this record.
  append(end, kVersion64);
  append(end, kVersion64);
  append(end, uint32_t{0});
  append(end, uint32_t{0});
  append(end, entries_);
  append(end, entries_);
  append(end, size);
  append(end, offset);
  append(end, kEnd64Locator);
  append(end, uint32_t{0});
  append(end, offset + size);
  append(end, uint32_t{1});  // Disks.
  append(end, kEnd);
  append(end, uint16_t{0});
  append(end, uint16_t{0});
  append(end, narrow16(entries_));
  append(end, narrow16(entries_));
  append(end, narrow32(size));
  append(end, narrow32(offset));
  append(end, uint16_t{0});  // No comment.
  file_.write(as_bytes(end));
}

}  // namespace gemma
