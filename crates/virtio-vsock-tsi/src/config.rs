//! How a device is set up.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use vsock_proto::policy::{Hook, Policy};
use vsock_proto::{Cid, Config, Limits, Muxer, Publish, TsiFlags};

use crate::Handler;
use crate::backend::{DatagramService, HostSockets, Route, RouteError, RouteListener, check_routes};

/// Set-up of a device.
pub struct VsockConfig {
    /// The guest's address.
    pub guest_cid: Cid,
    /// Which of the guest's sockets become the host's.
    pub tsi: TsiFlags,
    /// Where those may connect to.
    pub policy: Policy,
    /// The embedder's say in each destination that the policy allows. Plain vsock ports are routes of the embedder's own, and
    /// the guest's own published ports are no destination: nobody is asked about those.
    pub hook: Option<Box<dyn Hook>>,
    /// The folder that the guest sees as `/`, for AF_UNIX sockets. Without it none is reached.
    pub unix_root: Option<OwnedFd>,
    /// TCP listeners of the guest that the host shows: the guest's port, and where the host listens.
    pub port_map: BTreeMap<u16, SocketAddr>,
    /// AF_UNIX listeners of the guest that the host shows: paths in the guest, each with all that is below it.
    pub publish_unix: Vec<Vec<u8>>,
    /// Plain vsock ports.
    pub routes: Vec<Route>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for VsockConfig {
    fn default() -> VsockConfig {
        VsockConfig {
            guest_cid: Cid::DEFAULT_GUEST,
            tsi: TsiFlags::default(),
            policy: Policy::default(),
            hook: None,
            unix_root: None,
            port_map: BTreeMap::new(),
            publish_unix: Vec::new(),
            routes: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Why a device cannot be set up so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VsockConfigError {
    /// A published port, and TSI does not carry TCP.
    #[error("guest port {0} is to be published but TSI does not carry internet sockets")]
    PortMapWithoutInet(u16),
    /// A published AF_UNIX listener, and TSI does not carry AF_UNIX.
    #[error("listeners at {0:?} are to be published but TSI does not carry AF_UNIX sockets")]
    PublishWithoutUnix(PathBuf),
    /// A published port 0.
    #[error("port 0 cannot be published: {guest} to {host}")]
    PortZero {
        /// The guest's.
        guest: u16,
        /// The host's.
        host: SocketAddr,
    },
    /// AF_UNIX without the folder that it is confined to.
    #[error("TSI is to carry AF_UNIX sockets but there is no folder to confine them to")]
    UnixWithoutRoot,
    /// A route.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl VsockConfig {
    fn check(&self) -> Result<(), VsockConfigError> {
        if let Some((&guest, _)) = self.port_map.first_key_value().filter(|_| !self.tsi.inet) {
            return Err(VsockConfigError::PortMapWithoutInet(guest));
        }
        if let Some(path) = self.publish_unix.first().filter(|_| !self.tsi.unix) {
            return Err(VsockConfigError::PublishWithoutUnix(OsStr::from_bytes(path).into()));
        }
        if let Some((&guest, &host)) = self
            .port_map
            .iter()
            .find(|(guest, host)| **guest == 0 || host.port() == 0)
        {
            return Err(VsockConfigError::PortZero { guest, host });
        }
        if self.tsi.unix && self.unix_root.is_none() {
            return Err(VsockConfigError::UnixWithoutRoot);
        }
        check_routes(&self.routes, !self.tsi.is_empty())?;
        Ok(())
    }

    /// The handler of such a device. Sockets of routes that host clients connect to are made here; nobody is let in
    /// before [`Handler::start`].
    ///
    /// # Errors
    /// When parts of the set-up contradict each other, or a route's socket cannot be made.
    pub fn into_handler(self) -> Result<Handler<HostSockets>, VsockConfigError> {
        self.check()?;
        let listeners = self.routes.iter().map(Route::listen).collect::<Result<Vec<_>, _>>()?;
        let listeners: Vec<RouteListener> = listeners.into_iter().flatten().collect();
        let ipv4 = self.port_map.values().filter(|at| at.is_ipv4());
        let mut backend = HostSockets::new().with_ipv4_ports(ipv4.map(SocketAddr::port));
        if let Some(dir) = self.unix_root {
            backend = backend.with_unix_root(dir, &self.publish_unix);
        }
        let mut config = Config {
            tsi: self.tsi,
            policy: self.policy,
            publish: Publish {
                ports: self.port_map,
                unix: self.publish_unix,
            },
            limits: self.limits,
            ..Config::new(self.guest_cid)
        };
        let (backend, datagram_services) = add_routes(self.routes, &mut config, backend);
        let mut mux = Muxer::new(config);
        if let Some(hook) = self.hook {
            mux = mux.with_hook(hook);
        }
        let mut handler = Handler::new(mux, backend).with_routes(listeners);
        for (port, service) in datagram_services {
            handler = handler.with_datagram_service(port, service);
        }
        Ok(handler)
    }
}

/// A service and its port.
type ServiceAtPort = (u32, Box<dyn DatagramService>);

/// Tells the muxer which ports lead somewhere, and the back-end where the streams go. Gives the datagram services.
fn add_routes(routes: Vec<Route>, config: &mut Config, mut backend: HostSockets) -> (HostSockets, Vec<ServiceAtPort>) {
    let mut datagram_services = Vec::new();
    for route in routes {
        match route {
            Route::Connect { port, path } => {
                config.stream_routes.insert(port);
                backend = backend.with_path(port, path);
            }
            Route::Service { port, service } => {
                config.stream_routes.insert(port);
                backend = backend.with_service(port, service);
            }
            Route::DatagramService { port, service } => {
                config.datagram_routes.insert(port);
                datagram_services.push((port, service));
            }
            Route::Multiplex { path } => {
                config.any_stream_route = true;
                backend = backend.with_prefix(path);
            }
            // Its socket is the handler's.
            Route::Listen { .. } => {}
        }
    }
    (backend, datagram_services)
}
