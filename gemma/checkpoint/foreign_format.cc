#include <algorithm>

#include <gemma/checkpoint/foreign_format.h>

namespace gemma {
namespace {

using namespace std::string_view_literals;

struct Signature {
  uint64_t offset;
  std::string_view bytes;
  std::string_view meaning;
};

constexpr auto kResave =
    "is a file of PyTorch older than 1.6: load it in Python and write it again with "
    "torch.save(..., _use_new_zipfile_serialization=True) of PyTorch 1.6 or newer"sv;

constexpr Signature kSignatures[] = {
    // torch/serialization.py: MAGIC_NUMBER as protocol 2 pickles it.
    {0, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv, kResave},
    {257, "ustar"sv, kResave},
    {0, "\x80"sv, "is a bare pickle, not a file of torch.save: pass what torch.save wrote"},
    {0, "\x89HDF"sv, "is an HDF5 file (Keras?): pass the .ckpt or the PyTorch shards"},
    {0, "\x1f\x8b"sv, "is compressed with gzip: unpack it first"},
    {0, "{"sv, "is JSON, not the weights: give the directory that it is in, or a file of weights"},
    {0, "version https://git-lfs"sv,
     "is a git-lfs pointer, not the weights: run `git lfs pull` where it was cloned"},
};

// A server's error page, saved under the name of the file that was asked for.
bool is_web_page(Bytes file) {
  std::string_view text = as_text(file.first(std::min<size_t>(file.size(), 256)));
  text.remove_prefix(std::min(text.find_first_not_of("\xef\xbb\xbf \t\r\n"), text.size()));
  const auto begins_with = [text](std::string_view tag) {
    return text.size() >= tag.size() &&
           std::ranges::equal(text.substr(0, tag.size()), tag, [](char c, char lower) {
             return (c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) == lower;
           });
  };
  return begins_with("<!doctype") || begins_with("<html");
}

}  // namespace

std::string_view foreign_format(Bytes file) {
  for (const Signature& signature : kSignatures) {
    if (fits(signature.offset, signature.bytes.size(), file.size()) &&
        as_text(file).substr(signature.offset, signature.bytes.size()) == signature.bytes) {
      return signature.meaning;
    }
  }
  if (is_web_page(file)) return "is a web page, not the weights: the download failed";
  return {};
}

}  // namespace gemma
