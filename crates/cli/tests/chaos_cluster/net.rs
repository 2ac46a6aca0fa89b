//! A network of this test alone: a bridge, and a namespace for each machine, whose link can be cut.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// See the module. All of it goes when this is dropped.
pub(crate) struct Net {
    bridge: String,
    /// The first three bytes of all addresses.
    prefix: [u8; 3],
    machines: Vec<String>,
}

impl Net {
    /// One with `machines`; the reason, if this process may not make networks.
    pub(crate) fn new(machines: usize) -> Result<Self, String> {
        let id = std::process::id();
        let bridge = format!("kap{}", id % 100_000);
        let prefix = [10, 128 + (id / 251 % 100) as u8, (id % 251) as u8];
        let mut net = Self {
            bridge: bridge.clone(),
            prefix,
            machines: Vec::new(),
        };
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        for last in [1, 2] {
            let address = format!("{}/24", net.address(last));
            ip(&["address", "add", &address, "dev", &bridge])?;
        }
        ip(&["link", "set", &bridge, "up"])?;
        for number in 0..machines {
            net.add(number)?;
        }
        Ok(net)
    }

    fn add(&mut self, number: usize) -> Result<(), String> {
        let space = format!("{}-{number}", self.bridge);
        ip(&["netns", "add", &space])?;
        self.machines.push(space.clone());
        let (outer, inner) = (self.outer(number), "eth0");
        ip(&[
            "link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", &space,
        ])?;
        ip(&["link", "set", &outer, "master", &self.bridge, "up"])?;
        let address = format!("{}/24", self.machine(number));
        ip(&["-n", &space, "address", "add", &address, "dev", inner])?;
        ip(&["-n", &space, "link", "set", inner, "up"])?;
        ip(&["-n", &space, "link", "set", "lo", "up"])
    }

    fn outer(&self, number: usize) -> String {
        format!("{}v{number}", self.bridge)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }

    /// Where the database is reached.
    pub(crate) fn database(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// A machine's address.
    pub(crate) fn machine(&self, number: usize) -> Ipv4Addr {
        self.address(10 + u8::try_from(number).unwrap_or(0))
    }

    /// A command that runs there.
    pub(crate) fn command(&self, number: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machines[number], program]);
        command
    }

    /// Cuts a machine off from everybody, or not any more.
    pub(crate) fn cut(&self, number: usize, off: bool) {
        let state = if off { "down" } else { "up" };
        ip(&["link", "set", &self.outer(number), state]).expect("a link is switched");
    }

    /// What a machine sends to an address is lost, or not any more. What comes from there arrives.
    pub(crate) fn cut_one_way(&self, number: usize, to: Ipv4Addr, off: bool) {
        let (word, to) = (if off { "add" } else { "delete" }, format!("{to}/32"));
        let words = [
            "-n",
            &self.machines[number],
            "route",
            word,
            "blackhole",
            &to,
        ];
        ip(&words).expect("a route is switched");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in &self.machines {
            // Whatever could be made.
            let _ = ip(&["netns", "delete", space]);
        }
        let _ = ip(&["link", "delete", &self.bridge]);
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    let ended = command.args(words).stdin(Stdio::null()).output();
    let ended = ended.map_err(|error| format!("ip: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&ended.stderr);
    Err(format!("ip {}: {}", words.join(" "), why.trim()))
}
