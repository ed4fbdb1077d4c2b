//! HTTP/2 clients that send more than they should of what they may, and some of what they may not.

use std::io::Result;

use tokio::io::AsyncWriteExt;

use super::Dice;
use super::good::Places;
use super::hostile::{listen, open};
use crate::frames::*;

pub async fn any(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    stream.write_all(&hello()).await?;
    let count = 100 + dice.below(900) as u32;
    let kind = dice.below(11);
    let two = |rest| format!("{}/{rest}", places.sharing.way(1));
    if kind == 4 {
        stream.write_all(&frame(HEADERS, 0, 1, GET)).await?;
    }
    for turn in 0..count {
        let id = 2 * turn + 1;
        let bytes = match kind {
            // Rapid reset.
            0 => [frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/echo")), reset(id, h2::Reason::CANCEL)].concat(),
            1 => frame(PING, 0, 0, &[7; 8]),
            2 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
            3 => frame(PRIORITY, 0, id, &[0, 0, 0, 0, 16]),
            4 => frame(CONTINUATION, 0, 1, &literal("x-more", "and more")),
            5 => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            6 if turn == 0 => frame(HEADERS, END_HEADERS, 1, &get("/echo")),
            6 => frame(DATA, 0, 1, b""),
            // Streams without end, more than are allowed.
            7 => frame(HEADERS, END_HEADERS, id, &get(&two("echo"))),
            // A field that is long once and short on the wire ever after.
            8 => frame(HEADERS, END_HEADERS | END_STREAM, id, &bomb(turn)),
            // Large answers that nobody gives room for.
            9 => frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/down/0/400000")),
            _ => frame(dice.below(14) as u8, dice.below(256) as u8, dice.below(9) as u32, &[dice.below(256) as u8; 9]),
        };
        stream.write_all(&bytes).await?;
    }
    listen(&mut stream, dice).await
}

fn bomb(turn: u32) -> Vec<u8> {
    let mut block = GET.to_vec();
    if turn == 0 {
        // Literal with indexing: "x" and 3,000 bytes of value, whose length is 127 + 57 + 22 * 128.
        block.extend([0x40, 1, b'x', 0x7f, 0xb9, 0x16]);
        block.extend([b'v'; 3000]);
    }
    block.extend([0xbe; 2000]);
    block
}

/// Good requests to bad origins, of which some are taken back.
pub async fn broken_http2(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    stream.write_all(&hello()).await?;
    for turn in 0..1 + dice.below(20) as u32 {
        let id = 2 * turn + 1;
        let down = format!("{}/down/0/400000", places.sharing.way(dice.below(3).min(1)));
        let path = if dice.below(5) < 1 { BAD[dice.below(BAD.len())] } else { &down };
        let ends = dice.below(3) > 0;
        let flags = if ends { END_HEADERS | END_STREAM } else { END_HEADERS };
        stream.write_all(&frame(HEADERS, flags, id, &get(path))).await?;
        if !ends {
            stream.write_all(&frame(DATA, if dice.below(2) == 0 { END_STREAM } else { 0 }, id, b"a piece")).await?;
        }
        if dice.below(4) == 0 {
            dice.pause(20).await;
            stream.write_all(&reset(id, h2::Reason::CANCEL)).await?;
        }
    }
    listen(&mut stream, dice).await
}

pub const BAD: [&str; 6] = ["/bad1", "/bad2", "/again1", "/again2", "/badtls", "/bad1/x"];
