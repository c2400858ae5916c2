#pragma once

#include <string>

namespace mneme {

/// Opens a file in `folder` that has no name and is gone when it is closed, for reading and writing. It bypasses the
/// page cache where the file system can (O_DIRECT): then offsets, lengths and addresses are multiples of 4096. Throws
/// Error(kIo).
int open_unnamed(const std::string& folder);

}  // namespace mneme
