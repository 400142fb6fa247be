//! One line and one slot for one device: both or neither.

use crate::irq::named;
use crate::{AllocError, IrqLine, IrqPool, Layout, MmioPool, MmioRange, Usage};

/// What one device has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceResources {
    /// Its interrupt line.
    pub irq: IrqLine,
    /// Its registers.
    pub mmio: MmioRange,
}

/// How much there is, and how much of it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// IRQ lines.
    pub irq_lines: Usage,
    /// MMIO slots.
    pub mmio_slots: Usage,
}

/// All that one name holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name.
    pub name: String,
    /// Its lines, lowest first.
    pub irq_lines: Vec<IrqLine>,
    /// Its ranges, lowest first.
    pub mmio: Vec<MmioRange>,
}

/// Hands out IRQ lines and MMIO slots together.
///
/// The two pools are open to callers that need only one of both ([`irqs_mut`](Self::irqs_mut),
/// [`mmio_mut`](Self::mmio_mut)).
#[derive(Debug, Clone)]
pub struct ResourceAllocator {
    irqs: IrqPool,
    mmio: MmioPool,
}

impl ResourceAllocator {
    /// An allocator with all of the layout free.
    pub fn new(layout: &Layout) -> Self {
        Self {
            irqs: IrqPool::new(&layout.irq),
            mmio: MmioPool::new(&layout.mmio),
        }
    }

    /// Gives the device the next line and the lowest slot, or nothing.
    ///
    /// # Errors
    ///
    /// No line or no slot is free, or the name is empty.
    pub fn allocate_device(&mut self, name: impl Into<String>) -> Result<DeviceResources, AllocError> {
        let name = named(name)?;
        let irq = self.irqs.allocate(name.clone())?;
        match self.mmio.allocate_slot(name) {
            Ok(mmio) => Ok(DeviceResources { irq, mmio }),
            Err(error) => self.give_back(irq, error),
        }
    }

    /// Gives each of the devices a line and a slot in the order given, or none of them anything.
    ///
    /// # Errors
    ///
    /// As [`allocate_device`](Self::allocate_device). The error counts all of the request, and names all that got nothing.
    pub fn allocate_devices<N: Into<String>>(
        &mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Vec<DeviceResources>, AllocError> {
        let mut names = names.into_iter();
        let mut given = Vec::with_capacity(names.size_hint().0);
        while let Some(name) = names.next() {
            match self.allocate_device(name) {
                Ok(resources) => given.push(resources),
                Err(error) => {
                    let refusal = refuse_the_rest(error, names);
                    for resources in given {
                        self.free_device(resources)?;
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(given)
    }

    /// Gives the device just this line and this range, or nothing.
    ///
    /// # Errors
    ///
    /// As [`IrqPool::allocate_exact`] and [`MmioPool::allocate_exact`].
    pub fn allocate_device_exact(
        &mut self,
        name: impl Into<String>,
        resources: DeviceResources,
    ) -> Result<(), AllocError> {
        let name = named(name)?;
        self.irqs.allocate_exact(name.clone(), resources.irq)?;
        match self.mmio.allocate_exact(name, resources.mmio) {
            Ok(()) => Ok(()),
            Err(error) => self.give_back(resources.irq, error),
        }
    }

    /// Takes back a device's line and range together, and tells its name.
    ///
    /// # Errors
    ///
    /// Nobody holds one of the two, or not one and the same name holds both. Then neither is freed.
    pub fn free_device(&mut self, resources: DeviceResources) -> Result<String, AllocError> {
        let DeviceResources { irq, mmio } = resources;
        let irq_holder = self.irqs.holder(irq).ok_or(AllocError::IrqLineNotHeld(irq))?;
        let mmio_holder = self.mmio.holder(mmio).ok_or(AllocError::MmioNotHeld(mmio))?;
        if irq_holder != mmio_holder {
            let (irq_holder, mmio_holder) = (irq_holder.to_owned(), mmio_holder.to_owned());
            return Err(AllocError::NotOneDevice {
                irq,
                irq_holder,
                mmio,
                mmio_holder,
            });
        }
        self.irqs.free(irq)?;
        self.mmio.free(mmio)
    }

    /// How much there is, and how much of it is in use.
    pub fn budget(&self) -> Budget {
        Budget {
            irq_lines: self.irqs.usage(),
            mmio_slots: self.mmio.usage(),
        }
    }

    /// All names that hold something, in the order of their lines; those with only a range come after, by address.
    pub fn holders(&self) -> Vec<Holder> {
        let mut holders: Vec<Holder> = Vec::new();
        for holding in self.irqs.holdings() {
            entry(&mut holders, &holding.owner).irq_lines.push(holding.resource);
        }
        for holding in self.mmio.holdings() {
            entry(&mut holders, &holding.owner).mmio.push(holding.resource);
        }
        holders
    }

    /// The IRQ lines alone.
    pub fn irqs(&self) -> &IrqPool {
        &self.irqs
    }

    /// The IRQ lines alone, to allocate or reserve.
    pub fn irqs_mut(&mut self) -> &mut IrqPool {
        &mut self.irqs
    }

    /// The MMIO window alone.
    pub fn mmio(&self) -> &MmioPool {
        &self.mmio
    }

    /// The MMIO window alone, to allocate or reserve.
    pub fn mmio_mut(&mut self) -> &mut MmioPool {
        &mut self.mmio
    }

    fn give_back<T>(&mut self, irq: IrqLine, error: AllocError) -> Result<T, AllocError> {
        self.irqs.free(irq)?;
        Err(error)
    }
}

fn refuse_the_rest<N: Into<String>>(mut error: AllocError, rest: impl Iterator<Item = N>) -> AllocError {
    match &mut error {
        AllocError::IrqLinesExhausted { asked, refused, .. } => {
            let held = asked.saturating_sub(1);
            refused.extend(rest.map(Into::into));
            *asked = held.saturating_add(u64::try_from(refused.len()).unwrap_or(u64::MAX));
        }
        AllocError::MmioExhausted { refused, .. } => refused.extend(rest.map(Into::into)),
        _ => {}
    }
    error
}

fn entry<'a>(holders: &'a mut Vec<Holder>, name: &str) -> &'a mut Holder {
    let index = holders
        .iter()
        .position(|holder| holder.name == name)
        .unwrap_or_else(|| {
            holders.push(Holder {
                name: name.to_owned(),
                irq_lines: Vec::new(),
                mmio: Vec::new(),
            });
            holders.len() - 1
        });
    &mut holders[index]
}
