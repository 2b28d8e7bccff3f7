//! The public names: each has one path, and few are at the root.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::{Attribute, Ident, Item, UseTree, Visibility};

/// What the root of the crate holds, beside its modules. A new name belongs into a module, unless most applications
/// need it.
const ROOT: &[&str] = &[
    "Capabilities",
    "Change",
    "LogLimit",
    "Matched",
    "OnInvalid",
    "Permit",
    "Promise",
    "Receiver",
    "Reflector",
    "Registry",
    "Rejection",
    "RejectionKind",
    "Store",
    "Webhook",
    "receiver",
    "reflect",
];

#[test]
fn every_public_name_has_one_path() {
    let krate = Crate::read();
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    krate.visit(&[], &mut |path| paths.entry(krate.definition(path)).or_default().push(path.join("::")));
    assert!(paths.len() > 100, "found {} public names, expected all of them", paths.len());
    let faults: Vec<_> = paths.values().filter(|paths| paths.len() > 1).map(|paths| paths.join(" and ")).collect();
    assert!(faults.is_empty(), "these names have more than one public path:\n{}", faults.join("\n"));
}

#[test]
fn the_root_holds_few_names() {
    let krate = Crate::read();
    let mut names = Vec::new();
    krate.visit(&[], &mut |path| {
        if let [name] = path {
            names.push(name.clone());
        }
    });
    names.sort();
    assert_eq!(names, ROOT);
}

#[derive(Default)]
struct Module {
    /// Items and imports, with the path that an import stands for. `true` for public ones.
    names: BTreeMap<String, (bool, Option<Vec<String>>)>,
    public_modules: Vec<String>,
}

struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
}

impl Crate {
    fn read() -> Self {
        let mut krate = Self { modules: BTreeMap::new() };
        krate.enter(&[], Path::new("src/lib.rs"));
        krate
    }

    fn enter(&mut self, at: &[String], file: &Path) {
        let syntax = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
        let folder = match file.file_stem().unwrap().to_str().unwrap() {
            "lib" | "mod" => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        let mut module = Module::default();
        for item in &syntax.items {
            match item {
                Item::Mod(item) if item.content.is_none() && !is_left_out(&item.attrs) => {
                    let name = item.ident.to_string();
                    let beside = folder.join(format!("{name}.rs"));
                    let file = if beside.exists() { beside } else { folder.join(format!("{name}/mod.rs")) };
                    self.enter(&[at, std::slice::from_ref(&name)].concat(), &file);
                    if is_public(&item.vis) {
                        module.public_modules.push(name);
                    }
                }
                Item::Use(item) if !is_left_out(&item.attrs) => {
                    module.import(at, &item.tree, &[], is_public(&item.vis));
                }
                Item::Const(item) => module.define(&item.ident, &item.vis),
                Item::Enum(item) => module.define(&item.ident, &item.vis),
                Item::Fn(item) => module.define(&item.sig.ident, &item.vis),
                Item::Static(item) => module.define(&item.ident, &item.vis),
                Item::Struct(item) => module.define(&item.ident, &item.vis),
                Item::Trait(item) => module.define(&item.ident, &item.vis),
                Item::Type(item) => module.define(&item.ident, &item.vis),
                _ => {}
            }
        }
        self.modules.insert(at.to_vec(), module);
    }

    /// Calls `see` with the path of each name that another crate can use.
    fn visit(&self, at: &[String], see: &mut impl FnMut(&[String])) {
        let module = &self.modules[at];
        for (name, _) in module.names.iter().filter(|(_, (is_public, _))| *is_public) {
            see(&[at, std::slice::from_ref(name)].concat());
        }
        for name in &module.public_modules {
            self.visit(&[at, std::slice::from_ref(name)].concat(), see);
        }
    }

    /// The path where the item is defined that `path` names.
    fn definition(&self, path: &[String]) -> String {
        let (name, at) = path.split_last().unwrap();
        match self.modules.get(at).and_then(|module| module.names.get(name)) {
            Some((_, Some(further))) => self.definition(further),
            _ => path.join("::"),
        }
    }
}

impl Module {
    fn define(&mut self, name: &Ident, vis: &Visibility) {
        self.names.insert(name.to_string(), (is_public(vis), None));
    }

    fn import(&mut self, at: &[String], tree: &UseTree, before: &[String], is_public: bool) {
        let with = |name: &Ident| [before, &[name.to_string()]].concat();
        let (name, path) = match tree {
            UseTree::Path(path) => return self.import(at, &path.tree, &with(&path.ident), is_public),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(at, tree, before, is_public));
            }
            UseTree::Name(item) => (&item.ident, with(&item.ident)),
            UseTree::Rename(item) => (&item.rename, with(&item.ident)),
            UseTree::Glob(_) => {
                assert!(!is_public, "`pub use` with `*` in {}: name what is public", at.join("::"));
                return;
            }
        };
        self.names.insert(name.to_string(), (is_public, Some(absolute(at, &path))));
    }
}

/// `path`, from the root of the crate; one of another crate stays as it is.
fn absolute(at: &[String], path: &[String]) -> Vec<String> {
    let above = path.iter().take_while(|part| *part == "super").count();
    match path[0].as_str() {
        "crate" => path[1..].to_vec(),
        "self" => [at, &path[1..]].concat(),
        "super" => [&at[..at.len() - above], &path[above..]].concat(),
        _ => path.to_vec(),
    }
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

/// Whether this is there for tests or fuzzing only.
fn is_left_out(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let syn::Meta::List(list) = &attr.meta else { return false };
        list.path.is_ident("cfg") && ["test", "fuzzing"].contains(&list.tokens.to_string().as_str())
    })
}
