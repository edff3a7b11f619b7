// The classes and functions that a pickle may name, and what calling one of them gives. The unpickler's side
// of pickle.h.
#pragma once

#include <string>
#include <string_view>

#include "qkv/core/parallel.h"
#include "qkv/formats/pickle.h"

namespace qkv {

// Null if `module`.`name` is not on the list. Names of Python 2 are known by those of Python 3.
const PickleName* find_pickle_name(std::string_view module, std::string_view name);

// How a called function makes values; counts them and the bytes they copy.
using PickleMaker = FunctionRef<PickleRef(PickleValue value, size_t copied_bytes)>;

// What `function(*arguments)` stands for. Throws Error without a position: "collections.OrderedDict:
// expected ..., found ...".
PickleRef call_pickle_name(const PickleName& function, const PickleSequence& arguments, PickleMaker make);

// What a persistent id stands for. Throws Error as above.
PickleStorage pickle_storage(PickleRef persistent_id);

}  // namespace qkv
