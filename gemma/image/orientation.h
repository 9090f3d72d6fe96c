#pragma once

#include <string>
#include <string_view>

namespace gemma {

/// How a picture lies in its file, 1 to 8, as Pillow's ImageOps.exif_transpose finds it: what Exif
/// says, and if Exif has no such entry, what XMP says. 1, upright, if neither has one, and for
/// damaged Exif and values out of range: a picture is not lost for its metadata.
/// `exif` may begin with "Exif\0\0", as in JPEG files; empty means absent, as does an empty `xmp`.
int orientation_of(std::string_view exif, std::string_view xmp);

/// The bytes in a PNG text "Raw profile type exif", ImageMagick's form: a blank line, a name, a
/// length, then hexadecimal digits. Empty if these are damaged.
std::string exif_of_raw_profile(std::string_view text);

}  // namespace gemma
