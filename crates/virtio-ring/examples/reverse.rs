//! A device that answers each request with its bytes reversed, and a driver that asks.
//!
//!     cargo run -p tessera-virtio-ring --example reverse

use test_guest::Guest;
use virtio_queue::{Queue, QueueT};
use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::{GuestAddress, GuestMemoryBackend};

fn serve<M: GuestMemoryBackend>(ring: &mut Ring, chain: &mut Chain, mem: &M) -> Result<bool, RingError> {
    let (mem, mut buffer) = (&Nearby::new(mem), [0; 512]);
    while ring.pop(mem, chain)? {
        let len = chain.readable_len().min(chain.writable_len()).min(buffer.len());
        let bytes = &mut buffer[..len];
        let done = chain.read_at(mem, 0, bytes).and_then(|()| {
            bytes.reverse();
            chain.write_at(mem, 0, bytes)
        });
        let written = if done.is_ok() {
            u32::try_from(len).unwrap_or(0)
        } else {
            0
        };
        ring.push_used(mem, chain.head(), written)?;
    }
    ring.publish(mem)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut guest = Guest::new(1 << 20);
    let mut driver = guest.ring(16);

    let mut queue = Queue::new(driver.size())?;
    queue.try_set_desc_table_address(GuestAddress(driver.desc_table()))?;
    queue.try_set_avail_ring_address(GuestAddress(driver.avail_ring()))?;
    queue.try_set_used_ring_address(GuestAddress(driver.used_ring()))?;
    queue.set_ready(true);
    let mut device = Ring::new(queue);

    // The request is cut where it suits the driver; the answer goes into two pieces.
    let mut buffers = guest.readable_pieces(b"drawer", &[2, 2, 5]);
    let answer = guest.writable_pieces(&[3, 13]);
    buffers.extend(&answer);
    driver.add(guest.mem(), &buffers).ok_or("no free descriptor")?;

    let interrupt = serve(&mut device, &mut Chain::new(), guest.mem())?;

    let used = driver.poll_used(guest.mem()).ok_or("no answer")?;
    let text = String::from_utf8(guest.bytes_of_all(&answer))?;
    println!(
        "interrupt: {interrupt}, {} bytes: {}",
        used.len,
        &text[..used.len as usize]
    );
    Ok(())
}
