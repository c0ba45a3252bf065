//! Prints the unwind rule at addresses of an ELF file: `rule FILE ADDRESS...` (hexadecimal).

use profiler_address::ElfVaddr;
use profiler_elf::ElfParts;
use profiler_unwinders::rows;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bytes = std::fs::read(arguments.next().ok_or("usage: rule FILE ADDRESS...")?)?;
    let mut rules = rows::RuleDictionary::new();
    let table = rows::compile(&ElfParts::parse(&bytes)?, &mut rules)?;
    println!("{:?}", table.stats);
    for address in arguments {
        let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
        let rule = table.rule_at(ElfVaddr(address));
        println!("{address:#x}: {rule} {:?}", rules.rules().get(usize::from(rule)));
    }
    Ok(())
}
