//! The client against servers that answer as told, byte by byte.

mod answers;
mod hostile;
