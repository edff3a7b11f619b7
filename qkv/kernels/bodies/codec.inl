// The codecs' loops in plain words, which each instruction set compiles with its own flags: shifts by variable counts
// and narrowing stores gain most. Included in an unnamed namespace.

void split_words(const uint16_t* __restrict words, int64_t n, uint16_t* __restrict field, uint8_t* __restrict rest) {
  for (int64_t i = 0; i < n; ++i) {
    const unsigned word = words[i];
    field[i] = static_cast<uint16_t>(word >> 6 & 0x1FF);
    rest[i] = static_cast<uint8_t>((word >> 9 & 0x40) | (word & 0x3F));
  }
}

void join_words(const uint8_t* __restrict rest, int64_t n, uint16_t* __restrict words) {
  for (int64_t i = 0; i < n; ++i)
    words[i] = static_cast<uint16_t>(words[i] | (rest[i] & 0x40u) << 9 | (rest[i] & 0x3Fu));
}

// Eight 7-bit numbers, one per byte, as the low 56 bits of a word, and back: halves of pairs closed up, three times.
inline uint64_t pack_group(uint64_t x) {
  x = (x & 0x007F007F007F007F) | (x & 0x7F007F007F007F00) >> 1;
  x = (x & 0x00003FFF00003FFF) | (x & 0x3FFF00003FFF0000) >> 2;
  return (x & 0x000000000FFFFFFF) | (x & 0x0FFFFFFF00000000) >> 4;
}
inline uint64_t unpack_group(uint64_t x) {
  x = (x & 0x000000000FFFFFFF) | (x & 0x00FFFFFFF0000000) << 4;
  x = (x & 0x00003FFF00003FFF) | (x & 0x0FFFC0000FFFC000) << 2;
  return (x & 0x007F007F007F007F) | (x & 0x3F803F803F803F80) << 1;
}

void pack7(const uint8_t* bytes, int64_t n, std::byte* packed) {
  for (int64_t i = 0; i < n; i += 8, packed += 7) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + i, static_cast<size_t>(n - i < 8 ? n - i : 8));
    word = pack_group(word);
    std::memcpy(packed, &word, 8);
  }
}

// Sign and low bits of eight words, a byte each, beside their fields.
inline void join_group(uint64_t rest, uint16_t* words) {
  for (int half = 0; half < 2; ++half) {
    uint64_t bits = rest >> 32 * half & 0xFFFFFFFF;
    bits = (bits | bits << 16) & 0x0000FFFF0000FFFF;
    bits = (bits | bits << 8) & 0x00FF00FF00FF00FF;
    uint64_t four;
    std::memcpy(&four, words + 4 * half, 8);
    four |= (bits & 0x0040004000400040) << 9 | (bits & 0x003F003F003F003F);
    std::memcpy(words + 4 * half, &four, 8);
  }
}

void join_packed(const std::byte* packed, int64_t n, uint16_t* words) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 8, packed += 7) {  // another group follows: its first byte is read and dropped
    uint64_t word;
    std::memcpy(&word, packed, 8);
    join_group(unpack_group(word), words + i);
  }
  for (; i < n; i += 8, packed += 7) {
    uint64_t word = 0;
    std::memcpy(&word, packed, 7);
    uint16_t group[8] = {};
    const auto left = static_cast<size_t>(n - i < 8 ? n - i : 8);
    std::memcpy(group, words + i, 2 * left);
    join_group(unpack_group(word), group);
    std::memcpy(words + i, group, 2 * left);
  }
}

template <typename T>
inline void write_step(HuffmanWriter<T>& writer, const uint32_t* codes) {
  uint64_t word = writer.word;
  uint32_t used = writer.used;
#pragma GCC unroll 5
  for (int k = 0; k < kCodecLookups; ++k) {
    const uint32_t code = codes[writer.symbol[k]];
    word |= static_cast<uint64_t>(code & 0xFFFF) << (used & 63);
    used += code >> 16;
  }
  writer.symbol += kCodecLookups;
  std::memcpy(writer.to, &word, sizeof word);
  writer.to += used >> 3;
  writer.word = word >> (used & ~7u & 63);
  writer.used = used & 7;
}

template <typename T>
void huffman_write(HuffmanWriter<T>* writers, int64_t steps, const uint32_t* codes) {
  HuffmanWriter<T> a = writers[0], b = writers[1], c = writers[2], d = writers[3];
  for (; steps > 0; --steps) {
    write_step(a, codes);
    write_step(b, codes);
    write_step(c, codes);
    write_step(d, codes);
  }
  writers[0] = a;
  writers[1] = b;
  writers[2] = c;
  writers[3] = d;
}

template <typename T>
inline void read_step(HuffmanReader<T>& reader, const uint64_t* table) {
  uint64_t word;
  std::memcpy(&word, reader.in, sizeof word);
  word >>= reader.bit & 63;
  uint64_t consumed = reader.bit;  // in its low byte: the sum of all entries' first
  T* out = reader.out;
#pragma GCC unroll 5
  for (int i = 0; i < kCodecLookups; ++i) {
    const uint64_t entry = table[word & ((1u << kCodecBits) - 1)];
    const uint64_t symbols = entry >> 16;
    std::memcpy(out, &symbols, sizeof symbols);
    out += entry >> 8 & 0xFF;
    word >>= entry & 63;
    consumed += entry;
  }
  consumed &= 0xFF;
  reader.out = out;
  reader.in += consumed >> 3;
  reader.bit = consumed & 7;
}

template <typename T>
void huffman_read(HuffmanReader<T>* readers, const uint64_t* table) {
  HuffmanReader<T> a = readers[0], b = readers[1], c = readers[2], d = readers[3];
  while (a.has_step() && b.has_step() && c.has_step() && d.has_step()) {
    read_step(a, table);
    read_step(b, table);
    read_step(c, table);
    read_step(d, table);
  }
  readers[0] = a;
  readers[1] = b;
  readers[2] = c;
  readers[3] = d;
}

// Eight indices take kBits bytes; the second four begin at bit 4 kBits.
template <int kBits>
void look_up_bits(const std::byte* indices, int64_t n, const uint16_t* codebook, uint16_t* words) {
  constexpr uint64_t mask = (uint64_t{1} << kBits) - 1;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8, indices += kBits) {
    uint64_t low, high;
    std::memcpy(&low, indices, 8);
    if constexpr (kBits <= 8) {
      high = low >> 4 * kBits;
    } else {
      std::memcpy(&high, indices + kBits / 2, 8);
      high >>= 4 * kBits % 8;
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      words[i + k] = codebook[low >> k * kBits & mask];
      words[i + 4 + k] = codebook[high >> k * kBits & mask];
    }
  }
  for (int64_t bit = 0; i < n; ++i, bit += kBits) {
    uint16_t pair = static_cast<uint16_t>(indices[bit / 8]);
    if (bit % 8 + kBits > 8) pair = static_cast<uint16_t>(pair | static_cast<unsigned>(indices[bit / 8 + 1]) << 8);
    uint32_t index = static_cast<uint32_t>(pair) >> bit % 8;
    if (bit % 8 + kBits > 16) index |= static_cast<uint32_t>(indices[bit / 8 + 2]) << (16 - bit % 8);
    words[i] = codebook[index & mask];
  }
}

void look_up(const std::byte* indices, int bits, int64_t n, const uint16_t* codebook, uint16_t* words) {
  switch (bits) {
    case 4: return look_up_bits<4>(indices, n, codebook, words);
    case 5: return look_up_bits<5>(indices, n, codebook, words);
    case 6: return look_up_bits<6>(indices, n, codebook, words);
    case 7: return look_up_bits<7>(indices, n, codebook, words);
    case 8: return look_up_bits<8>(indices, n, codebook, words);
    case 9: return look_up_bits<9>(indices, n, codebook, words);
    case 10: return look_up_bits<10>(indices, n, codebook, words);
    case 11: return look_up_bits<11>(indices, n, codebook, words);
    default: return look_up_bits<12>(indices, n, codebook, words);
  }
}

void merge_words(const std::byte* bitmaps, int64_t groups, const uint16_t* known, const std::byte* others,
                 uint16_t* words) {
  for (int64_t g = 0; g < groups; ++g, words += 8) {
    const auto map = static_cast<unsigned>(bitmaps[g]);
    for (int i = 0; i < 8; ++i) {
      const unsigned is_known = map >> i & 1;
      uint16_t other;
      std::memcpy(&other, others, 2);
      words[i] = is_known != 0 ? *known : other;
      known += is_known;
      others += 2 * (1 - is_known);
    }
  }
}

CodecKernels make_codec_table() {
  CodecKernels table{};
  table.split_words = split_words;
  table.join_words = join_words;
  table.pack7 = pack7;
  table.join_packed = join_packed;
  table.huffman_write16 = huffman_write<uint16_t>;
  table.huffman_write8 = huffman_write<uint8_t>;
  table.huffman_read16 = huffman_read<uint16_t>;
  table.huffman_read8 = huffman_read<uint8_t>;
  table.look_up = look_up;
  table.merge_words = merge_words;
  return table;
}
