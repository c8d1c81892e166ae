//! Hellos, and as much of CBOR as they need.

use crate::{common::stranger::pad, memory::claimed};
use minicbor::Decoder;
use node_core::{
    Name, Timestamp,
    wire::handshake::{ChainHead, HELLO_BLOCK, HELLO_BLOCKS_MAX, Hello, UserAgent},
};

/// A hello is read as another implementation of CBOR reads it, and says the same when it is written and read again.
pub(crate) fn run(data: &[u8]) {
    let Some((&how, cbor)) = data.split_first() else {
        return;
    };
    // Any bytes, or some with a true length, which a fuzzer seldom finds.
    let block = match how % 8 {
        0 => cbor.to_vec(),
        blocks => {
            let length = HELLO_BLOCK * usize::from(blocks).min(HELLO_BLOCKS_MAX);
            pad(&cbor[..cbor.len().min(length - 2)], length)
        }
    };
    let (hello, bytes) = claimed(|| Hello::decode(&block));
    assert!(bytes <= 2048, "{bytes} bytes for {}", block.len());
    match (&hello, reference(&block)) {
        (Some(ours), theirs) => assert_eq!(Some(ours), theirs.as_ref()),
        // minicbor passes over a break where there is nothing to end.
        (None, Some(_)) => assert!(block.contains(&0xff), "{block:?}"),
        (None, None) => {}
    }
    let Some(hello) = hello else { return };
    let again = Hello::decode(&hello.encode());
    let Some(again) = again else {
        panic!("{hello:?} writes what is no hello")
    };
    let labels =
        [&hello.name, &hello.target].map(|n| n.as_ref().map_or(0, |n| n.label.as_str().len()));
    if labels[0] + labels[1] <= 60 {
        assert_eq!(again, hello);
    }
    // Longer names leave less room, and none of what must be said is left out for it.
    assert!(
        hello
            .user_agent
            .as_str()
            .starts_with(again.user_agent.as_str())
    );
    assert!(again.head == hello.head || again.head.is_none());
    let must = Hello {
        user_agent: again.user_agent.clone(),
        head: again.head,
        ..hello
    };
    assert_eq!(again, must);
}

/// A hello as minicbor reads it.
fn reference(block: &[u8]) -> Option<Hello> {
    let (length, rest) = block.split_first_chunk()?;
    let (cbor, padding) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut input = Decoder::new(cbor);
    let mut fields: [Option<Field>; 9] = Default::default();
    for _ in 0..input.map().ok()?? {
        let key = input.u64().ok()?;
        let Some(field) = usize::try_from(key)
            .ok()
            .and_then(|key| fields.get_mut(key))
        else {
            input.skip().ok()?;
            continue;
        };
        let value = match key {
            0 => Field::Number(input.u8().ok()?.into()),
            1 => Field::Number(input.u64().ok()?),
            4 | 5 => Field::Number(input.u32().ok()?.into()),
            2 | 3 | 6 => Field::Bytes(input.bytes().ok()?.to_vec()),
            7 => Field::Text(input.str().ok()?.to_owned()),
            _ => {
                let (2, number) = (input.array().ok()??, input.u64().ok()?) else {
                    return None;
                };
                Field::Head(number, input.bytes().ok()?.to_vec())
            }
        };
        if field.replace(value).is_some() {
            return None;
        }
    }
    if input.position() != cbor.len() {
        return None;
    }
    let number = |at: usize| match &fields[at] {
        Some(Field::Number(number)) => Some(*number),
        _ => None,
    };
    let name = |at: usize| match &fields[at] {
        Some(Field::Bytes(bytes)) => Name::decode(bytes).map(Some).ok(),
        _ => Some(None),
    };
    let agent = match &fields[7] {
        Some(Field::Text(text)) => text.as_str(),
        _ => "",
    };
    let printable = agent.len() <= 48 && agent.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    Some(Hello {
        version_max: u8::try_from(number(0)?).ok()?,
        timestamp: Timestamp(number(1)?),
        name: name(2)?,
        target: name(3)?,
        features: u32::try_from(number(4).unwrap_or(0)).ok()?,
        privacy: u32::try_from(number(5).unwrap_or(0)).ok()?,
        nonce: match &fields[6] {
            Some(Field::Bytes(bytes)) => bytes.as_slice().try_into().ok()?,
            _ => return None,
        },
        user_agent: printable.then(|| UserAgent::new(agent))?,
        head: match &fields[8] {
            Some(Field::Head(number, hash)) => Some(ChainHead {
                number: *number,
                hash: hash.as_slice().try_into().ok()?,
            }),
            _ => None,
        },
    })
}

enum Field {
    Number(u64),
    Bytes(Vec<u8>),
    Text(String),
    Head(u64, Vec<u8>),
}
