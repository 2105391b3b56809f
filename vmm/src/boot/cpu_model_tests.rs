use super::*;

fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, flags: 0, eax, ebx, ecx, edx, padding: [9; 3] }
}

fn brand(text: &str) -> Vec<kvm_cpuid_entry2> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(48, 0);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    (0..3)
        .map(|i| entry(0x8000_0002 + i as u32, 0, [0, 4, 8, 12].map(|at| word(16 * i + at))))
        .collect()
}

/// A host that supports every bit of every leaf, which no real host does.
fn everything() -> Vec<kvm_cpuid_entry2> {
    let all = [u32::MAX; 4];
    let vendor = [0x20, 0x756E_6547, 0x6C65_746E, 0x4965_6E69];
    let mut table = vec![entry(0, 0, vendor), entry(1, 0, [0x0005_0657, !0, !0, !0])];
    for leaf in (2..=0x20).chain([0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0001]) {
        table.push(entry(leaf, 0, all));
    }
    for (leaf, index) in [(4, 1), (4, 2), (7, 1), (7, 2), (0xB, 1), (0xD, 1), (0xD, 2)] {
        table.push(entry(leaf, index, all));
    }
    // The component of AVX has its place, whatever else there is.
    for e in table.iter_mut().filter(|e| (e.function, e.index) == (0xD, 2)) {
        (e.eax, e.ebx) = (256, 576);
    }
    table.extend((0x8000_0005..=0x8000_0022).map(|leaf| entry(leaf, 0, all)));
    table.extend(brand("  Some(R)   Processor @ 2.00GHz  "));
    table
}

#[test]
fn model_offers_only_what_is_listed() {
    let model = CpuModel::from_supported(&everything());
    let leaves: Vec<_> = model.entries().iter().map(|e| (e.function, e.index)).collect();
    let basic = [(0, 0), (1, 0), (2, 0), (4, 0), (4, 1), (4, 2), (7, 0), (0xB, 0), (0xB, 1)];
    let extended: Vec<_> = [0, 1, 2, 3, 4, 6, 8].map(|leaf| (0x8000_0000 + leaf, 0)).into();
    assert_eq!(leaves, [&basic[..], &extended].concat());

    let e = |leaf, index| *model.entry(leaf, index).unwrap();
    assert_eq!(e(0, 0).eax, 4);
    assert_eq!((e(1, 0).eax, e(1, 0).ebx), (0x0005_0657, 0x0001_0800));
    // No SSE3 and up, VMX, x2APIC, TSC-deadline, XSAVE, AVX, RDRAND, hypervisor bit.
    assert_eq!(e(1, 0).ecx, 0);
    // No TSC (4), MCE (7), APIC (9), MTRR (12), MCA (14), PSN, DS, ACPI, SS, HTT, TM, PBE.
    assert_eq!(e(1, 0).edx, 0x078B_A96F);
    assert_eq!([e(7, 0).eax, e(7, 0).ebx, e(7, 0).ecx, e(7, 0).edx], [0, 0, 4, 0]);
    assert!(model.has_umip());
    assert_eq!(e(4, 1).eax, 0x3FF, "one core, one thread");
    assert_eq!([e(0xB, 0).eax, e(0xB, 0).ebx, e(0xB, 0).ecx, e(0xB, 0).edx], [0, 1, 0x100, 0]);
    assert_eq!([e(0xB, 1).eax, e(0xB, 1).ebx, e(0xB, 1).ecx, e(0xB, 1).edx], [0, 0, 1, 0]);
    assert_eq!(e(0x8000_0000, 0).eax, 0x8000_0008);
    assert_eq!((e(0x8000_0001, 0).ecx, e(0x8000_0001, 0).edx), (1, 0x2010_0800));
    assert_eq!((e(0x8000_0008, 0).eax, e(0x8000_0008, 0).ebx), (0x3024, 4));
    assert!(model.entries().iter().all(|e| e.padding == [0; 3]));
}

#[test]
fn model_of_poor_host_has_no_feature_that_the_host_lacks() {
    let poor = [entry(0, 0, [2, 0, 0, 0]), entry(1, 0, [0x6F0, 0, 0, 1 << 25])];
    let model = CpuModel::from_supported(&poor);
    assert_eq!(model.entries().len(), 2);
    assert_eq!((model.entries()[0].eax, model.entries()[1].edx), (2, 1 << 25));
    assert!(!model.has_umip());
    assert_eq!(CpuModel::from_supported(&[]).entries(), []);
    assert_eq!(
        CpuModel::from_supported(&[]).name(),
        "v1: unknown processor (family 0 model 0 stepping 0)"
    );
}

#[test]
fn model_does_not_depend_on_order_apic_id_or_newer_features() {
    let model = CpuModel::from_supported(&everything());
    let mut other = everything();
    other.reverse();
    for e in &mut other {
        match e.function {
            1 => e.ebx = 0x0700_0800, // CPUID ran on another core
            0xB => e.edx = 7,
            7 => (e.ebx, e.edx) = (0, 0), // microcode took TSX away
            _ => {}
        }
    }
    other.retain(|e| !(0x4000_0000..0x8000_0000).contains(&e.function) && e.function != 0x1D);
    let other = CpuModel::from_supported(&other);
    assert_eq!(model.digest(), other.digest());
    assert_eq!(diff(&model, &other), Vec::<String>::new());
}

#[test]
fn model_does_not_depend_on_kvm_version_or_parameters() {
    // An AMD processor of family 25.
    let [l1, l2] = [
        [0xFF48_FF40, 0xFF48_FF40, 0x2008_0140, 0x2008_0140],
        [0x5C00_2200, 0x6C00_4200, 0x0200_6140, 0x0200_9140],
    ];
    let with = |changes: &[kvm_cpuid_entry2]| {
        let mut table = vec![
            entry(2, 0, [1, 0, 0, 0]),
            entry(0x8000_0005, 0, l1),
            entry(0x8000_0006, 0, l2),
            entry(0x8000_0007, 0, [0, 0, 0, 0x100]),
            entry(0x8000_0008, 0, [0x0030_3030, 4, 0, 0]),
        ];
        for change in changes {
            let found = table.iter_mut().find(|entry| entry.function == change.function);
            *found.unwrap() = *change;
        }
        CpuModel::from_supported(&table)
    };
    let stateful = kvm_cpuid_entry2 { flags: 6, ..entry(2, 0, [1, 0, 0, 0]) };
    for change in [
        stateful,
        entry(0x8000_0005, 0, [0; 4]),
        entry(0x8000_0006, 0, [l2[0], l2[1], l2[2], l2[3] | 3 << 16]),
        entry(0x8000_0007, 0, [0; 4]),
        // Memory encryption, five levels of paging, no GuestPhysAddrSize.
        entry(0x8000_0008, 0, [0x302B, 4, 0, 0]),
        entry(0x8000_0008, 0, [0x3934, 4, 0xF, 0]),
    ] {
        assert_eq!(diff(&with(&[]), &with(&[change])), Vec::<String>::new());
        assert_eq!(with(&[]), with(&[change]));
    }
    let poor = with(&[entry(0x8000_0008, 0, [0x3020, 4, 0, 0])]);
    let widths = poor.answer(0x8000_0008, 0, Controls::RESET);
    assert_eq!(widths[0], 0x3020, "no wider than the host's");
}

#[test]
fn model_of_its_own_entries_is_unchanged() {
    for name in ModelName::ALL {
        let model = CpuModel::named(name, &everything()).unwrap();
        assert_eq!(CpuModel::named(name, model.entries()), Ok(model));
    }
}

#[test]
fn name_is_brand_and_signature() {
    let model = CpuModel::from_supported(&everything());
    assert_eq!(model.name(), "v1: Some(R) Processor @ 2.00GHz (family 6 model 85 stepping 7)");
    let nameless: Vec<_> = everything().into_iter().filter(|e| e.function < 0x8000_0000).collect();
    let name = CpuModel::from_supported(&nameless).name();
    assert_eq!(name, "v1: GenuineIntel (family 6 model 85 stepping 7)");
    assert_eq!(signature(0x00A2_0F12), (25, 33, 2), "AMD adds the extended family");
}

#[test]
fn differences_are_named() {
    let mut lesser = everything();
    for e in &mut lesser {
        match (e.function, e.index) {
            (7, 0) => e.ecx = 0,
            (1, 0) => (e.eax, e.edx) = (0x0005_0654, e.edx & !(1 << 17)),
            _ => {}
        }
    }
    lesser.retain(|e| (e.function, e.index) != (4, 2));
    let (a, b) = (CpuModel::from_supported(&everything()), CpuModel::from_supported(&lesser));
    assert_ne!(a.digest(), b.digest());
    let expected = [
        "the first is v1: Some(R) Processor @ 2.00GHz (family 6 model 85 stepping 7), the second is \
         v1: Some(R) Processor @ 2.00GHz (family 6 model 85 stepping 4)",
        "leaf 0x1.0 eax: 0x00050657 in the first, 0x00050654 in the second",
        "pse36: only the first has it",
        "leaf 0x4.2: only the first has it",
        "umip: only the first has it",
    ];
    assert_eq!(diff(&a, &b), expected);
    assert_eq!(diff(&b, &a)[3], "leaf 0x4.2: only the second has it");
}

#[test]
fn every_model_has_its_golden_table() {
    // If a digest changes, no snapshot or log of that model can be used any more: give a new model a new name.
    let golden = [0x1E84_5198_F195_5F5D, 0x8CD4_05E1_5D53_1E08, 0xAD20_8E06_5BB7_02F0];
    let models = ModelName::ALL.map(|name| CpuModel::named(name, &everything()).unwrap());
    assert_eq!(models.each_ref().map(CpuModel::digest), golden, "{models:x?}");
    assert_eq!(models[0], CpuModel::from_supported(&everything()));
}

#[test]
fn models_offer_their_psabi_levels_and_nothing_else() {
    let [v2, v3] =
        [ModelName::V2, ModelName::V3].map(|name| CpuModel::named(name, &everything()).unwrap());
    let e = |model: &CpuModel, leaf, index| {
        let e = model.entry(leaf, index).unwrap();
        [e.eax, e.ebx, e.ecx, e.edx]
    };
    // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT.
    assert_eq!(
        e(&v2, 1, 0)[2..],
        [1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23, 0x078B_A96F]
    );
    assert_eq!((e(&v2, 0, 0)[0], e(&v2, 7, 0)), (4, [0, 0, 4, 0]));
    assert_eq!(e(&v2, 0x8000_0001, 0)[2..], [1, 0x2010_0800]);
    assert_eq!(v2.entry(0xD, 0), None);
    // FMA, MOVBE, XSAVE, AVX, F16C; no OSXSAVE, which follows CR4.
    let of_v3 = 1 << 12 | 1 << 22 | 1 << 26 | 1 << 28 | 1 << 29;
    assert_eq!(e(&v3, 1, 0)[2], e(&v2, 1, 0)[2] | of_v3);
    assert_eq!((e(&v3, 0, 0)[0], e(&v3, 7, 0)), (0xD, [0, 1 << 3 | 1 << 5 | 1 << 8, 4, 0]));
    assert_eq!(e(&v3, 0x8000_0001, 0)[2], 1 | 1 << 5);
    assert_eq!((e(&v3, 0xD, 0), e(&v3, 0xD, 2)), ([7, 576, 832, 0], [256, 576, 0, 0]));
    assert_eq!(v3.entry(0xD, 1), None, "no XSAVEOPT, XSAVEC, XSAVES, XGETBV with ECX=1");
    for (name, model) in [(ModelName::V2, &v2), (ModelName::V3, &v3)] {
        let mut newer = everything();
        for e in newer.iter_mut().filter(|e| e.function == 0xD && e.index == 0) {
            (e.ebx, e.ecx) = (2696, 11008);
        }
        newer.retain(|e| !(0x4000_0000..0x8000_0000).contains(&e.function));
        newer.push(entry(0xD, 9, [8, 2688, 0, 0]));
        assert_eq!(CpuModel::named(name, &newer).unwrap().digest(), model.digest());
    }
}

#[test]
fn missing_features_are_named() {
    let mut lesser = everything();
    for e in &mut lesser {
        match (e.function, e.index) {
            (1, 0) => e.ecx &= !(1 << 20 | 1 << 28),
            (7, 0) => (e.ebx, e.ecx) = (e.ebx & !(1 << 5), 0),
            _ => {}
        }
    }
    let refused = |name| CpuModel::named(name, &lesser).unwrap_err().to_string();
    assert!(CpuModel::named(ModelName::V1, &lesser).is_ok());
    assert_eq!(refused(ModelName::V2), "it lacks sse4.2");
    assert_eq!(refused(ModelName::V3), "it lacks sse4.2, avx, avx2");
    let mut moved = everything();
    moved.retain(|e| (e.function, e.index) != (0xD, 2));
    let lacking = CpuModel::named(ModelName::V3, &moved).unwrap_err();
    assert_eq!(lacking.features, ["avx state"]);
    assert!(CpuModel::named(ModelName::V1, &[]).unwrap_err().features.contains(&"sse2"));
    assert_eq!(ModelName::default(), ModelName::V1);
}

#[test]
fn answers_follow_the_guest_s_control_registers_if_the_model_has_xsave() {
    let enabled = Controls { cr4: CR4_OSXSAVE, xcr0: 7 };
    for name in ModelName::ALL {
        let model = CpuModel::named(name, &everything()).unwrap();
        let changes = |leaf, index| {
            let [before, after] =
                [Controls::RESET, enabled].map(|controls| model.answer(leaf, index, controls));
            [0, 1, 2, 3].map(|at| before[at] ^ after[at])
        };
        let (osxsave, length) = if name.has_xsave() { (1 << 27, 576 ^ 832) } else { (0, 0) };
        assert_eq!(changes(1, 0), [0, 0, osxsave, 0]);
        assert_eq!(changes(0xD, 0), [0, length, 0, 0]);
        assert_eq!((changes(0xD, 2), changes(7, 0)), ([0; 4], [0; 4]));
    }
}

#[test]
fn table_that_a_kvm_alters_is_noticed() {
    let model = CpuModel::named(ModelName::V3, &everything()).unwrap();
    let with = |change: &dyn Fn(&mut Vec<kvm_cpuid_entry2>)| {
        let mut shown = model.entries().to_vec();
        change(&mut shown);
        model.altered(&shown)
    };
    assert_eq!(with(&|_| ()), None);
    assert_eq!(with(&|shown| shown.reverse()), None);
    let leaf = |shown: &mut Vec<kvm_cpuid_entry2>, leaf| {
        shown.iter().position(|e| e.function == leaf).unwrap()
    };
    assert_eq!(
        with(&|shown| {
            let at = leaf(shown, 1);
            shown[at].edx |= 1 << 9;
        }),
        None
    );
    assert_eq!(
        with(&|shown| {
            let at = leaf(shown, 7);
            shown[at].ebx |= 1 << 9;
        }),
        Some((7, 0))
    );
    assert_eq!(with(&|shown| shown.push(entry(0xD, 1, [1, 0, 0, 0]))), Some((0xD, 1)));
    assert_eq!(
        with(&|shown| {
            shown.remove(0);
        }),
        Some((0, 0))
    );
}
