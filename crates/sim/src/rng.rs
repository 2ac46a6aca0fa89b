//! The only source of chance: everything random in a simulation comes from one seed.

/// A small generator (xoshiro256**), filled by `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        };
        Self([next(), next(), next(), next()])
    }

    /// 64 random bits.
    #[expect(
        clippy::many_single_char_names,
        reason = "the names of the algorithm's description"
    )]
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (mut e, mut f) = (c ^ a, d ^ b);
        let (g, h) = (b ^ e, a ^ f);
        e ^= b << 17;
        f = f.rotate_left(45);
        self.0 = [h, g, e, f];
        result
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// A number from `low` to `high`, both possible.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0);
        low.saturating_add_unsigned(self.below(span.saturating_add(1)))
    }

    /// True `share` times in a thousand.
    pub fn chance(&mut self, share: u64) -> bool {
        self.below(1_000) < share
    }

    /// One of a list, which must not be empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.place(list.len())]
    }

    /// A place in a list of `len`.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A number from `low` to `high` of which each magnitude is as likely as the next.
    pub fn magnitude(&mut self, low: i64, high: i64) -> i64 {
        let mut steps = 1;
        let mut top = low.max(1);
        while top < high {
            top = top.saturating_mul(2);
            steps += 1;
        }
        let shift = self.below(steps);
        let from = low.max(1).saturating_mul(1 << shift.min(40)).min(high);
        self.between(from.min(high), from.saturating_mul(2).min(high))
            .max(low)
    }
}

/// A number's bits well mixed (the finaliser of `SplitMix64`).
pub fn mix(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
