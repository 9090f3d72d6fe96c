#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <gemma/checkpoint/bytes.h>

namespace gemma {

struct ZipEntry {
  std::string name;
  uint64_t offset;  // Of its first data byte, from the start of the file.
  uint64_t size;
};

/// The entries of a zip or zip64 archive, in the order of its central directory.
/// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, of which only what can be mapped is
/// accepted: stored, not encrypted, one disk. Every entry returned lies inside the file, overlaps
/// no other, and has a name of its own. Throws FormatError.
std::vector<ZipEntry> read_zip_directory(Bytes file);

}  // namespace gemma
