"""The project's random numbers in plain Python, from their definition: Philox 4x32-10 (Salmon et
al., 2011) with the round constants of that paper, a key derived from (seed, purpose, view, epoch),
counters {block, purpose, index}."""

import math

DROPOUT, MASK, MIX, CLIP = 9, 10, 11, 12  # purposes
U32 = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & U32, p0 >> 32 ^ c[3] ^ k[1], p0 & U32]
        k = [(k[0] + 0x9E3779B9) & U32, (k[1] + 0xBB67AE85) & U32]
    return c


class Stream:
    def __init__(self, seed, purpose, epoch, index, view):
        words = (purpose, view & U32, epoch & U32, epoch >> 32)
        self.key = philox(words, (seed & U32, seed >> 32))[:2]
        self.tail = (purpose, index & U32, index >> 32)
        self.block, self.left = 0, []

    def u32(self):
        if not self.left:
            self.left = philox((self.block,) + self.tail, self.key)
            self.block += 1
        return self.left.pop(0)

    def u64(self):
        low = self.u32()
        return low | self.u32() << 32

    def uniform(self):
        return (self.u64() >> 11) * 2.0**-53

    def between(self, low, high):
        return low + (high - low) * self.uniform()

    def below(self, n):
        if n <= 1:
            return 0
        first = (1 << 64) % n
        while True:
            value = self.u64()
            if value >= first:
                return value % n

    def normal(self):
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return radius * math.cos(6.283185307179586476925 * self.uniform())
