//! pprof of what people have.

use super::*;
