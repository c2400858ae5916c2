#include "base/unnamed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"

namespace mneme {

int open_unnamed(const std::string& folder) {
  for (const int flags : {O_DIRECT, 0}) {
    const int file = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
    if (file >= 0) return file;
  }
  std::string name = folder + "/.mneme-scratch-XXXXXX";  // a file system without O_TMPFILE
  const int file = ::mkostemp(name.data(), O_CLOEXEC);
  if (file < 0) fail_errno("open", "a scratch file in " + folder);
  ::unlink(name.c_str());
  return file;
}

}  // namespace mneme
