//! Limits the interim answers, and all else that hyper reads and discards, of a target.

use std::io;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// The longest head of an answer, in bytes.
pub(super) const MAX_HEAD: usize = 400 << 10;

/// The most bytes of an answer over HTTP/1.1: its head and the interim answers before it. The part of a body that is
/// read is smaller.
const MOST_BYTES: i64 = MAX_HEAD as i64 + (128 << 10);

/// The cost of a frame of HTTP/2. Frames with data cost less, because flow control limits them too.
const FRAME: i64 = 16;
const DATA_FRAME: i64 = 1;

/// The credit of an HTTP/2 target for each request, and at the start: more than any target is known to need.
const CREDIT_OF_A_REQUEST: i64 = 100 * FRAME;

/// The most credit that requests which needed less can accumulate.
const MOST_CREDIT: i64 = 40 * CREDIT_OF_A_REQUEST;

/// The number of bytes written to the target that earn it one frame more, because it updates its window as it reads.
const BYTES_OF_A_FRAME: i64 = 1 << 10;

/// How much a target may still send on a connection: bytes over HTTP/1.1, else frames.
#[derive(Debug, Default)]
pub(super) struct Credit(AtomicI64);

impl Credit {
    /// Adds the credit of a request that was given to the connection.
    pub(super) fn request(&self) {
        self.add(CREDIT_OF_A_REQUEST);
    }

    fn add(&self, amount: i64) {
        // Of two concurrent updates one may be lost, or the maximum exceeded slightly.
        self.0.store((self.0.load(Relaxed) + amount).min(MOST_CREDIT), Relaxed);
    }
}

/// Counts the bytes or frames read from a connection.
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

    /// Checks that more may be read.
    pub(super) fn check(&self, credit: &Credit) -> io::Result<()> {
        let is_over = match self {
            Self::Http1 { read } => *read >= MOST_BYTES,
            Self::Http2(_) => credit.0.load(Relaxed) + CREDIT_OF_A_REQUEST < 0,
        };
        match is_over {
            true => Err(io::Error::other("the target sent too many interim answers or other frames")),
            false => Ok(()),
        }
    }

    /// Counts bytes that were read.
    pub(super) fn read(&mut self, bytes: &[u8], credit: &Credit) {
        match self {
            Self::Http1 { read } => *read += bytes.len() as i64,
            Self::Http2(frames) => {
                let cost = frames.cost(bytes);
                credit.add(-cost);
            }
        }
    }

    /// Adds the credit for written bytes. `is_request`: they start a request, over HTTP/1.1.
    pub(super) fn written(&mut self, bytes: usize, is_request: bool, credit: &Credit) {
        match self {
            Self::Http1 { read } if is_request => *read = 0,
            Self::Http1 { .. } => {}
            Self::Http2(_) => credit.add(bytes as i64 * FRAME / BYTES_OF_A_FRAME),
        }
    }
}

/// The parser's position in a stream of frames (RFC 9113 §4.1).
#[derive(Default)]
pub(super) struct Frames {
    /// The part of a frame's header that has been read.
    head: [u8; 9],
    read: usize,
    /// How much of a frame's payload is still to come.
    payload: usize,
}

impl Frames {
    /// The cost of the frames whose headers are completed by `bytes`.
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
        // The payload looks like frame headers.
        frame.resize(9 + length, 0);
        frame
    }

    proptest! {
        #[test]
        fn frames_cost_the_same_however_reads_split_them(
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
    fn requests_and_written_bytes_pay_for_frames() {
        let (mut meter, credit) = (Meter::new(true), Credit::default());
        let read = |meter: &mut Meter, frames: usize| (0..frames).for_each(|_| meter.read(&frame(1, 1), &credit));
        read(&mut meter, 100);
        assert!(meter.check(&credit).is_ok());
        read(&mut meter, 1);
        assert!(meter.check(&credit).is_err());
        credit.request();
        read(&mut meter, 99);
        assert!(meter.check(&credit).is_ok());
        // Answers to PING do not pay for PING.
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
    fn over_http_1_the_bytes_of_each_request_are_counted() {
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
