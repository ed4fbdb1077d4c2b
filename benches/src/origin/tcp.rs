//! Bytes without a protocol that a proxy could know: a zero, a letter, a length, and then what the letter says.

use super::Server;
use crate::output::Output;
use crate::{Broken, pattern};

#[derive(Default)]
pub struct Tcp {
    order: Vec<u8>,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Order,
    Echo,
    Take {
        offset: u64,
        length: u64,
        right: bool,
    },
}

impl Server for Tcp {
    fn receive(&mut self, mut input: &[u8], out: &mut Output) -> Result<(), Broken> {
        while !input.is_empty() {
            match &mut self.state {
                State::Echo => {
                    out.bytes().extend_from_slice(input);
                    return Ok(());
                }
                State::Take { offset, length, right } => {
                    let (piece, rest) = input.split_at((*length - *offset).min(input.len() as u64) as usize);
                    *right &= pattern::matches(*offset, piece);
                    *offset += piece.len() as u64;
                    input = rest;
                    if offset == length {
                        out.bytes().push(if *right { RIGHT } else { WRONG });
                        self.state = State::Order;
                    }
                }
                State::Order => {
                    let wanted = ORDER - self.order.len();
                    let (piece, rest) = input.split_at(wanted.min(input.len()));
                    self.order.extend_from_slice(piece);
                    input = rest;
                    if self.order.len() == ORDER {
                        self.begin(out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Tcp {
    fn begin(&mut self, out: &mut Output) -> Result<(), Broken> {
        let order = std::mem::take(&mut self.order);
        let Some((&[0, letter], length)) = order.split_first_chunk::<2>() else {
            return Err("an order that does not begin with a zero".to_owned());
        };
        let length = length.try_into().map_or(0, u64::from_be_bytes);
        match letter {
            b'P' => self.state = State::Echo,
            b'U' => self.state = State::Take { offset: 0, length, right: true },
            b'D' => out.pattern(length),
            other => return Err(format!("an order that nobody knows: {other}")),
        }
        Ok(())
    }
}

/// The order as a client sends it.
pub fn order(letter: u8, length: u64) -> Vec<u8> {
    let mut order = vec![0, letter];
    order.extend_from_slice(&length.to_be_bytes());
    order
}

const ORDER: usize = 10;
pub const RIGHT: u8 = 6;
const WRONG: u8 = 21;
