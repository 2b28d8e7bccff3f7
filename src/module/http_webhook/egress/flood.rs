//! A bound on what a target sends without end: interim answers, and whatever else hyper reads and gives to nobody.

use std::io;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// The most bytes that the head of an answer may have.
pub(super) const MAX_HEAD: usize = 400 << 10;

/// The most bytes of an answer over HTTP/1.1 after which more is read: its head, and the interim answers before it. Of a
/// body less is wanted.
const MOST_BYTES: i64 = MAX_HEAD as i64 + (128 << 10);

/// What a frame of HTTP/2 costs. Frames with data cost less: flow control holds them back too.
const FRAME: i64 = 16;
const DATA_FRAME: i64 = 1;

/// What a target of HTTP/2 may send for each request, and to begin with: more than any is known to need.
const OF_A_REQUEST: i64 = 100 * FRAME;

/// The most that may be saved up by requests that needed less.
const MOST_CREDIT: i64 = 40 * OF_A_REQUEST;

/// How many bytes, written to the target, let it send one frame more: it opens its window as it reads.
const BYTES_OF_A_FRAME: i64 = 1 << 10;

/// What a connection may still bring: bytes over HTTP/1.1, else frames.
#[derive(Debug, Default)]
pub(super) struct Credit(AtomicI64);

impl Credit {
    /// A request was given to the connection.
    pub(super) fn request(&self) {
        self.add(OF_A_REQUEST);
    }

    fn add(&self, amount: i64) {
        // Two at a time may lose one of them, or exceed the most a little.
        self.0.store((self.0.load(Relaxed) + amount).min(MOST_CREDIT), Relaxed);
    }
}

/// Counts what is read from a connection.
pub(super) enum Meter {
    Http1 { read: i64 },
    Http2(Frames),
}

impl Meter {
    pub(super) fn new(is_http2: bool) -> Self {
        match is_http2 {
            true => Self::Http2(Frames::default()),
            false => Self::Http1 { read: 0 },
        }
    }

    /// Whether more may be read.
    pub(super) fn check(&self, credit: &Credit) -> io::Result<()> {
        let is_over = match self {
            Self::Http1 { read } => *read >= MOST_BYTES,
            Self::Http2(_) => credit.0.load(Relaxed) + OF_A_REQUEST < 0,
        };
        match is_over {
            true => Err(io::Error::other("the target sends interim answers, or other frames, without end")),
            false => Ok(()),
        }
    }

    /// These bytes were read.
    pub(super) fn read(&mut self, bytes: &[u8], credit: &Credit) {
        match self {
            Self::Http1 { read } => *read += bytes.len() as i64,
            Self::Http2(frames) => {
                let cost = frames.cost(bytes);
                credit.add(-cost);
            }
        }
    }

    /// So many bytes were written. `is_request`: with them a request begins, over HTTP/1.1.
    pub(super) fn written(&mut self, bytes: usize, is_request: bool, credit: &Credit) {
        match self {
            Self::Http1 { read } if is_request => *read = 0,
            Self::Http1 { .. } => {}
            Self::Http2(_) => credit.add(bytes as i64 * FRAME / BYTES_OF_A_FRAME),
        }
    }
}

/// Where in a frame (RFC 9113 §4.1) the reading is.
#[derive(Default)]
pub(super) struct Frames {
    /// As much of a frame's head as has been read.
    head: [u8; 9],
    read: usize,
    /// How much of a frame's payload has not.
    payload: usize,
}

impl Frames {
    /// What the frames cost whose heads end in `bytes`.
    fn cost(&mut self, mut bytes: &[u8]) -> i64 {
        let mut cost = 0;
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.head.len() - self.read).min(bytes.len());
            self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
            self.read += taken;
            bytes = &bytes[taken..];
            if self.read == self.head.len() {
                self.read = 0;
                let [high, middle, low, kind, ..] = self.head;
                self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
                let is_data = kind == 0 && self.payload > 0;
                cost += if is_data { DATA_FRAME } else { FRAME };
            }
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let bytes = (length as u32).to_be_bytes();
        let mut frame = vec![bytes[1], bytes[2], bytes[3], kind, 0, 0, 0, 0, 1];
        // Heads of frames, were they not payload.
        frame.resize(9 + length, 0);
        frame
    }

    proptest! {
        #[test]
        fn frames_cost_the_same_however_they_are_cut(
            frames in prop::collection::vec((0..10_u8, prop_oneof![0..40_usize, 0..70_000_usize]), 0..10),
            cuts in prop::collection::vec(1..30_000_usize, 1..10),
        ) {
            let expected: i64 = frames.iter().map(|&(kind, length)| match (kind, length) {
                (0, 1..) => DATA_FRAME,
                _ => FRAME,
            }).sum();
            let bytes: Vec<u8> = frames.into_iter().flat_map(|(kind, length)| frame(kind, length)).collect();
            let (mut rest, mut cuts, mut meter, mut cost) = (&bytes[..], cuts.into_iter().cycle(), Frames::default(), 0);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                cost += meter.cost(now);
                rest = later;
            }
            prop_assert_eq!(cost, expected);
        }
    }

    #[test]
    fn frames_are_paid_for_by_requests_and_by_what_is_written() {
        let (mut meter, credit) = (Meter::new(true), Credit::default());
        let read = |meter: &mut Meter, frames: usize| (0..frames).for_each(|_| meter.read(&frame(1, 1), &credit));
        read(&mut meter, 100);
        assert!(meter.check(&credit).is_ok());
        read(&mut meter, 1);
        assert!(meter.check(&credit).is_err());
        credit.request();
        read(&mut meter, 99);
        assert!(meter.check(&credit).is_ok());
        // What answers to PING does not pay for PING.
        for _ in 0..10 {
            read(&mut meter, 1);
            meter.written(17, false, &credit);
        }
        assert!(meter.check(&credit).is_err());
        meter.written(25 << 20, true, &credit);
        read(&mut meter, 4000);
        assert!(meter.check(&credit).is_ok());
        read(&mut meter, 1000);
        assert!(meter.check(&credit).is_err(), "not all is saved up");
    }

    #[test]
    fn of_http_1_bytes_are_counted_for_each_request() {
        let (mut meter, credit) = (Meter::new(false), Credit::default());
        meter.read(&[0; MOST_BYTES as usize - 1], &credit);
        assert!(meter.check(&credit).is_ok());
        meter.read(&[0], &credit);
        assert!(meter.check(&credit).is_err());
        meter.written(9, false, &credit);
        assert!(meter.check(&credit).is_err());
        meter.written(9, true, &credit);
        assert!(meter.check(&credit).is_ok());
    }
}
