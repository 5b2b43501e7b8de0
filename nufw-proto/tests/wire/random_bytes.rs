//! The fuzz targets' bodies on a bounded, repeatable diet: valid frames, damaged in every way that a generator knows.
//!
//! `cargo fuzz` goes deeper (nufw-proto/fuzz); this runs with every `cargo test`.

use crate::bodies::read_stream;
use crate::samples::{Sample, for_every_direction, frame};
use nufw_proto::{FRAME_HEADER, Message};
use std::fmt::Debug;

/// Damaged streams for each of the four directions.
const CASES: u32 = 50_000;

#[test]
fn damaged_streams_of_every_direction_are_read_or_refused_without_harm() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        let frames: Vec<Vec<u8>> = samples.iter().map(|sample| frame(&sample.message)).collect();
        let mut random = Random(0x6e75_6677);
        for _ in 0..CASES {
            read_stream::<M>(&random.damaged(&frames));
        }
    }
    for_every_direction!(check);
}

#[test]
fn noise_is_read_or_refused_without_harm() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        let types: Vec<u16> = samples.iter().map(|sample| sample.message.frame_type()).collect();
        let mut random = Random(0x6e75_6174);
        for _ in 0..CASES / 5 {
            let mut noise: Vec<u8> = (0..random.below(120)).map(|_| random.small_byte()).collect();
            read_stream::<M>(&noise);
            // Noise rarely has a header that fits, so it gets one.
            let mut headed = u32::try_from(noise.len()).unwrap().to_be_bytes().to_vec();
            headed.extend(types[random.below(types.len())].to_be_bytes());
            headed.extend([0, 0]);
            headed.append(&mut noise);
            read_stream::<M>(&headed);
        }
    }
    for_every_direction!(check);
}

/// A small generator (splitmix64): the same numbers on every run and machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// Mostly small: counts, tags and flags are, so that more of the noise gets far into a message.
    fn small_byte(&mut self) -> u8 {
        match self.below(4) {
            0 => self.byte(),
            1 => [0x7f, 0x80, 0xff, 0xfe][self.below(4)],
            _ => self.byte() % 8,
        }
    }

    fn damaged(&mut self, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = frames[self.below(frames.len())].clone();
        for _ in 0..=self.below(3) {
            self.damage(&mut stream, frames);
        }
        if self.below(2) == 0 && stream.len() >= FRAME_HEADER {
            // With a length that fits, so that the damage reaches the body.
            let length = u32::try_from(stream.len() - FRAME_HEADER).unwrap();
            stream[..4].copy_from_slice(&length.to_be_bytes());
        }
        stream
    }

    fn damage(&mut self, stream: &mut Vec<u8>, frames: &[Vec<u8>]) {
        let at = self.below(stream.len().max(1));
        let byte = self.small_byte();
        match self.below(7) {
            0 => stream.truncate(at),
            1 => stream.insert(at, byte),
            2 if !stream.is_empty() => drop(stream.remove(at)),
            3 if !stream.is_empty() => stream[at] ^= 1 << (byte % 8),
            4 => {
                let other = &frames[self.below(frames.len())];
                stream.truncate(at);
                stream.extend(&other[self.below(other.len())..]);
            }
            5 => stream.extend(&frames[self.below(frames.len())]),
            _ if !stream.is_empty() => stream[at] = byte,
            _ => stream.push(byte),
        }
    }
}
