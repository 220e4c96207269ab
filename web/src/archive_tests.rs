//! Zips as strangers send them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use super::*;

/// A zip with these entries, deflated.
fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `zip` with every `from` replaced by `to` of the same length, which no writer would produce.
fn forged(zip: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = zip.to_vec();
    let places: Vec<usize> = (0..=bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from.as_bytes()))
        .collect();
    assert!(places.len() >= 2, "local header and directory");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn what_is_packed_comes_back_and_is_always_the_same_bytes() {
    let files: [(&str, &[u8]); 3] = [
        ("adapter_config.json", b"{}"),
        ("adapter_model.safetensors", &[7; 5000]),
        ("qloom.json", b""),
    ];
    let zip = pack(&files).unwrap();
    assert!(is_zip(&zip));
    assert_eq!(zip, pack(&files).unwrap());
    let back = unpack(&zip).unwrap();
    assert_eq!(back.len(), 3);
    for (name, content) in files {
        assert_eq!(back[name], content, "{name}");
    }
}

#[test]
fn deflated_folders_are_read_and_clutter_left_out() {
    let zip = zip_of(&[
        ("run/adapter/adapter_config.json", b"{}"),
        ("__MACOSX/run/._adapter_config.json", b"x"),
        ("run/.DS_Store", b"x"),
    ]);
    let names: Vec<String> = unpack(&zip).unwrap().into_keys().collect();
    assert_eq!(names, ["run/adapter/adapter_config.json"]);
}

#[test]
fn names_that_lead_out_are_refused() {
    let zip = zip_of(&[("abcdefghijkl", b"x"), ("ok", b"y")]);
    for bad in [
        "../../passwd",
        "a/../../b/cd",
        "/etc/passwd1",
        "..\\..\\passwd",
        "C:\\windows\\x",
        "C:/windows/x",
    ] {
        let error = unpack(&forged(&zip, "abcdefghijkl", bad)).unwrap_err();
        assert!(
            matches!(&error, ArchiveError::Escapes { name } if name == bad),
            "{bad}: {error}"
        );
    }
}

#[test]
fn bombs_are_left_packed() {
    let zeros = vec![0; 40 << 20];
    let zip = zip_of(&[("adapter_model.safetensors", &zeros)]);
    assert!(zip.len() < 100 << 10, "{}", zip.len());
    let error = unpack(&zip).unwrap_err();
    assert!(matches!(error, ArchiveError::Ratio { .. }), "{error}");
    // A little may shrink a lot: a JSON of spaces is no bomb.
    let small = zip_of(&[("adapter_config.json", &[b' '; 1 << 19])]);
    assert_eq!(unpack(&small).unwrap().len(), 1);
    // Many files that are each in proportion still have a sum.
    let noise: Vec<u8> = (0..200_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let many = zip_of(&[("a", &noise), ("b", &noise), ("c", &noise)]);
    assert_eq!(unpack_within(&many, 600_000).unwrap().len(), 3);
    let error = unpack_within(&many, 599_999).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge), "{error}");
}

#[test]
fn a_size_that_lies_does_not_help() {
    let zeros = vec![0; 8 << 20];
    let mut zip = zip_of(&[("adapter_model.safetensors", &zeros)]);
    let lie = (8u32 << 20).to_le_bytes();
    for at in 0..zip.len() - 4 {
        if zip[at..at + 4] == lie {
            zip[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
        }
    }
    assert!(unpack(&zip).is_err());
}

#[test]
fn too_many_and_two_of_one_name_are_refused() {
    let names: Vec<String> = (0..=MOST_ENTRIES).map(|i| format!("f{i}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
    let error = unpack(&zip_of(&files)).unwrap_err();
    assert!(
        matches!(error, ArchiveError::TooMany { found: 257 }),
        "{error}"
    );
    let twice = forged(
        &zip_of(&[("aaaa.json", b"1"), ("bbbb.json", b"2")]),
        "bbbb.json",
        "aaaa.json",
    );
    let error = unpack(&twice).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Twice {
                stated: 2,
                found: 1
            }
        ),
        "{error}"
    );
}

#[test]
fn links_encryption_and_damage_are_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("link", "/etc/passwd", SimpleFileOptions::default())
        .unwrap();
    let link = zip.finish().unwrap().into_inner();
    let error = unpack(&link).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");

    // The encryption flag is bit 0 of the general purpose flags, in both headers.
    let mut locked = zip_of(&[("adapter_config.json", b"{}")]);
    let directory = locked.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    locked[6] |= 1;
    locked[directory + 8] |= 1;
    let error = unpack(&locked).unwrap_err();
    assert!(error.to_string().contains("encrypted"), "{error}");

    let whole = zip_of(&[("adapter_config.json", b"{\"r\": 8, \"lora_alpha\": 16}")]);
    for cut in 0..whole.len() {
        assert!(unpack(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let mut flipped = whole.clone();
    flipped[50] ^= 0x10;
    assert!(unpack(&flipped).is_err());
    assert!(!is_zip(b"{}"));
}
