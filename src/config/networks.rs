//! Lists of networks.

use super::CompileError;
use crate::base::network::Network;

/// Reads networks. An error has the index of the item, and does not quote the item.
pub(crate) fn read_networks(items: &[String]) -> Result<Vec<Network>, CompileError> {
    let read = |(at, text): (usize, &String)| {
        text.trim().parse().map_err(|error| CompileError::new(format!("{error}")).inside(&at.to_string()))
    };
    items.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_item_and_not_its_text() {
        let error = |items: [&str; 2]| read_networks(&items.map(str::to_owned)).unwrap_err().to_string();
        assert_eq!(error(["192.0.2.1", "hunter2"]), "1: each item must be an address or `address/prefix`");
        assert_eq!(error(["10.0.0.1/8", " "]), "0: a network's address has bits beyond its prefix");
        let networks = read_networks(&[" 10.0.0.0/8 ".to_owned(), "::1".to_owned()]).unwrap();
        assert_eq!(networks.len(), 2);
    }
}
