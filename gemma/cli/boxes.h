#pragma once

#include <string>
#include <vector>

// What `gemma run --boxes` writes of PaliGemma's answers.
namespace gemma::cli {

/// Throws std::invalid_argument, naming the flag, unless `path` ends in .png or .json and there is
/// one image.
void check_boxes(const std::string& path, const std::vector<std::string>& images);

/// The image with a frame around each thing that the answer has a place of (.png), or a list of
/// them, with their places in pixels (.json). Replaces what is there.
void write_boxes(const std::string& path, const std::string& image, const std::string& answer);

}  // namespace gemma::cli
