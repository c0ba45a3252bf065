//! The few DWARF expressions that compilers and assemblers write into unwind information, recognised by form.

use profiler_elf::Cursor;

use super::state::{Cfa, Place};

const DEREF: u8 = 0x06;
const PLUS: u8 = 0x22;
const PLUS_UCONST: u8 = 0x23;

/// `DW_CFA_def_cfa_expression`.
pub(super) fn cfa(expression: &[u8]) -> Cfa {
    procedure_linkage(expression).or_else(|| address(expression)).unwrap_or(Cfa::Unknown)
}

/// `DW_CFA_expression`: the address at which a register is saved.
pub(super) fn place(expression: &[u8]) -> Place {
    match address(expression) {
        Some(Cfa::Register { register, offset }) => Place::AtRegister { register, offset },
        _ => Place::Unknown,
    }
}

/// `reg + offset`, `*(reg + offset)` and `*(reg + offset) + offset2`.
fn address(expression: &[u8]) -> Option<Cfa> {
    let mut cursor = Cursor::new(expression);
    let (register, offset) = register_plus(&mut cursor)?;
    let offset = offset.checked_add(added(&mut cursor)?)?;
    if cursor.is_empty() {
        return Some(Cfa::Register { register, offset: i32::try_from(offset).ok()? });
    }
    if cursor.u8()? != DEREF {
        return None;
    }
    let offset2 = added(&mut cursor)?;
    if !cursor.is_empty() {
        return None;
    }
    Some(Cfa::Deref { register, offset: i32::try_from(offset).ok()?, offset2: i16::try_from(offset2).ok()? })
}

/// `sp + 8 + ((ip & 15) >= N) * 8`: what binutils and lld write for the PLT, whose entries are 16 bytes and push once, N bytes in.
fn procedure_linkage(expression: &[u8]) -> Option<Cfa> {
    let mut cursor = Cursor::new(expression);
    let (stack, offset) = register_plus(&mut cursor)?;
    let (ip, zero) = register_plus(&mut cursor)?;
    if stack != 7 || ip != 16 || zero != 0 {
        return None;
    }
    // lit15; and; litN; ge; lit3; shl; plus
    let &[0x3f, 0x1a, literal @ 0x30..=0x3f, 0x2a, 0x33, 0x24, PLUS] = cursor.rest() else { return None };
    Some(Cfa::Plt { offset: i32::try_from(offset).ok()?, pushed_at: literal - 0x30 })
}

/// `DW_OP_breg<n> offset` or `DW_OP_bregx n, offset`.
fn register_plus(cursor: &mut Cursor<'_>) -> Option<(u8, i64)> {
    let register = match cursor.u8()? {
        op @ 0x70..=0x8f => op - 0x70,
        0x92 => u8::try_from(cursor.uleb()?).ok()?,
        _ => return None,
    };
    Some((register, cursor.sleb()?))
}

/// The sum of all constants that are added next: `plus_uconst n`, or `<constant>; plus` or `; minus`.
fn added(cursor: &mut Cursor<'_>) -> Option<i64> {
    let mut sum = 0_i64;
    loop {
        let mut ahead = *cursor;
        let Some(op) = ahead.u8() else { return Some(sum) };
        if op == PLUS_UCONST {
            sum = sum.checked_add(i64::try_from(ahead.uleb()?).ok()?)?;
            *cursor = ahead;
            continue;
        }
        let constant = match op {
            0x30..=0x4f => i64::from(op - 0x30),
            0x08 => i64::from(ahead.u8()?),
            0x09 => i64::from(ahead.u8()?.cast_signed()),
            0x0a => i64::from(ahead.u16()?),
            0x0b => i64::from(ahead.u16()?.cast_signed()),
            0x0c => i64::from(ahead.u32()?),
            0x0d => i64::from(ahead.u32()?.cast_signed()),
            0x10 => i64::try_from(ahead.uleb()?).ok()?,
            0x11 => ahead.sleb()?,
            _ => return Some(sum),
        };
        match ahead.u8()? {
            PLUS => sum = sum.checked_add(constant)?,
            0x1c => sum = sum.checked_sub(constant)?,
            _ => return Some(sum),
        }
        *cursor = ahead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plt_of_every_linker() {
        for n in [9, 10, 11] {
            let expression = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + n, 0x2a, 0x33, 0x24, 0x22];
            assert_eq!(cfa(&expression), Cfa::Plt { offset: 8, pushed_at: n });
        }
    }

    #[test]
    fn realigned_frames_and_signal_frames() {
        assert_eq!(cfa(&[0x76, 0x78, 0x06]), Cfa::Deref { register: 6, offset: -8, offset2: 0 });
        assert_eq!(cfa(&[0x77, 0xa0, 1, 0x06]), Cfa::Deref { register: 7, offset: 160, offset2: 0 });
        assert_eq!(cfa(&[0x77, 8, 0x06, 0x23, 16]), Cfa::Deref { register: 7, offset: 8, offset2: 16 });
        assert_eq!(cfa(&[0x77, 8, 0x38, 0x22]), Cfa::Register { register: 7, offset: 16 });
        assert_eq!(cfa(&[0x92, 10, 0]), Cfa::Register { register: 10, offset: 0 });
        assert_eq!(place(&[0x76, 0x70]), Place::AtRegister { register: 6, offset: -16 });
        assert_eq!(place(&[0x76, 0x70, 0x06]), Place::Unknown);
    }

    #[test]
    fn anything_else_is_unknown() {
        for expression in [
            &[][..],
            &[0x77],
            &[0x77, 0x80],
            &[0x96],
            &[0x77, 8, 0x06, 0x06],
            &[0x77, 8, 0x38],
            &[0x92, 0xff, 0xff, 3, 0],
        ] {
            assert_eq!(cfa(expression), Cfa::Unknown);
        }
    }
}
