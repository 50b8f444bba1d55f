// ItemFilter: which items a query may find, by their attributes. Attribute a of an item is bit a of a word.
#pragma once

#include <cstdint>

namespace springtide {

// Items that have all attributes of `all`, at least one of `any` (unless it is 0) and none of `none`.
struct ItemFilter {
    uint64_t all = 0, any = 0, none = 0;
};

}  // namespace springtide
