//! What may take long while a recording runs, on a thread of its own: who samples waits for none of it.

use std::sync::mpsc::{SyncSender, channel, sync_channel};

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A value that one job after the other works with, on a thread that lives as long as this: processes that it starts end with it.
pub(super) struct Aside<T> {
    jobs: SyncSender<Job<T>>,
}

impl<T: 'static> Aside<T> {
    /// Starts the thread, on which the value is made; `name` is of 15 bytes at most.
    ///
    /// # Errors
    /// There can be no further thread.
    pub(super) fn start(name: &str, make: impl FnOnce() -> T + Send + 'static) -> std::io::Result<Self> {
        // Handed over when the thread waits for it, or not at all.
        let (jobs, inbox) = sync_channel::<Job<T>>(0);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut value = make();
            for job in inbox {
                job(&mut value);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Has `job` done, without waiting for it; false if the one before is not done, and this one will not be.
    pub(super) fn try_do(&self, job: impl FnOnce(&mut T) + Send + 'static) -> bool {
        self.jobs.try_send(Box::new(job)).is_ok()
    }

    /// Waits until `job` is done, and the one before.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn wait_for<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> anyhow::Result<R> {
        let (tell, told) = channel();
        let job = move |value: &mut T| drop(tell.send(job(value)));
        let gone = "the thread that names frames is gone";
        self.jobs.send(Box::new(job)).map_err(|_| anyhow::anyhow!(gone))?;
        told.recv().map_err(|_| anyhow::anyhow!(gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_something_done_does_not_wait_for_it_unless_he_says_so() {
        let aside = Aside::start("aside", Vec::new).unwrap();
        let (mut release, mut held) = channel::<()>();
        let hangs = |held: std::sync::mpsc::Receiver<()>| {
            move |seen: &mut Vec<u32>| {
                held.recv().unwrap();
                seen.push(1);
            }
        };
        // Its thread may not be there yet.
        while !aside.try_do(hangs(held)) {
            (release, held) = channel();
            std::thread::yield_now();
        }
        assert!(!aside.try_do(|seen| seen.push(2)), "it hangs, and this does not");
        release.send(()).unwrap();
        assert_eq!(aside.wait_for(|seen| seen.clone()).unwrap(), [1]);
    }
}
