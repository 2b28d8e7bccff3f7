//! The floors of `src/`: a folder imports only from lower floors, and no two files import each other.
//!
//! Every `crate::`, `super::` and `self::` path outside of tests is followed to the file that defines its item; a
//! re-export does not count as a use. Folders on the same floor do not import each other either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The folders and files at the top of `src/`, floor by floor.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["json"],
    &["form"],
    &["request"],
    &["config"],
    &["egress", "event"],
    &["auth", "dedup", "history"],
    &["handshake", "module"],
    &["delivery"],
    &["webhook"],
    &["store"],
    &["queue"],
    &["reflector", "worker"],
    &["layers", "source"],
    &["admin", "receiver"],
    &["fuzz", "guide", "lib"],
];

#[test]
fn no_import_runs_upwards() {
    let house = House::read();
    let faults: Vec<_> = house
        .uses()
        .into_iter()
        .filter(|(from, to)| floor(from) <= floor(to) && top(from) != top(to))
        .map(|(from, to)| format!("{from} uses {to}"))
        .collect();
    assert!(faults.is_empty(), "{} imports run upwards or across a floor:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_two_files_use_each_other() {
    let house = House::read();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in house.uses() {
        uses.entry(from).or_default().insert(to);
    }
    let circles: Vec<_> = uses.keys().filter_map(|file| circle(file, &uses)).collect();
    assert!(circles.is_empty(), "these files use each other:\n{}", circles.join("\n"));
}

#[test]
fn the_top_holds_folders_and_three_files() {
    let names = fs::read_dir("src").unwrap().map(|entry| entry.unwrap());
    let files: BTreeSet<_> = names
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let expected = ["fuzz.rs", "guide.rs", "lib.rs", "receiver.rs"];
    assert!(files.iter().all(|file| expected.contains(&file.as_str())), "found {files:?}, expected {expected:?}");
}

#[test]
fn contributing_has_every_folder_with_its_floor() {
    let page = include_str!("../../CONTRIBUTING.md");
    for (floor, folders) in FLOORS.iter().enumerate() {
        for folder in *folders {
            let rows =
                |row: &&str| row.starts_with(&format!("| {} | ", floor + 1)) && row.contains(&format!("`{folder}"));
            assert!(page.lines().any(|row| rows(&row)), "{folder} is not on floor {} of CONTRIBUTING.md", floor + 1);
        }
    }
}

fn floor(module: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&top(module))).unwrap_or_else(|| panic!("{module} is on no floor"))
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// The shortest cycle of imports through `file`, if there is one. It is reported once: for the file that comes first.
fn circle(file: &str, uses: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut ways = vec![vec![file.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in uses.get(way.last()?).into_iter().flatten() {
                if next == file {
                    let is_first = way.iter().all(|other| file <= other.as_str());
                    return is_first.then(|| format!("{} -> {file}", way.join(" -> ")));
                }
                if seen.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The modules of `src/` by path (`lib`, `auth`, `auth::guards`).
struct House {
    modules: BTreeMap<String, Module>,
}

#[derive(Default)]
struct Module {
    /// The names that the module imports, with their absolute paths.
    imports: BTreeMap<String, Vec<String>>,
    /// The imported names that the module only re-exports, and does not use itself.
    handed_out: BTreeSet<String>,
    /// The paths in the module's code: absolute, or relative to imported names.
    paths: BTreeSet<Vec<String>>,
    scoped: BTreeSet<Vec<String>>,
}

impl House {
    fn read() -> Self {
        let mut house = Self { modules: BTreeMap::new() };
        house.enter(&[], Path::new("src/lib.rs"));
        house
    }

    fn enter(&mut self, at: &[String], file: &Path) {
        let syntax = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
        let folder = match file.file_stem().unwrap().to_str().unwrap() {
            "lib" | "mod" => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        for item in &syntax.items {
            let Item::Mod(ItemMod { ident, content: None, attrs, .. }) = item else { continue };
            if is_test(attrs) {
                continue;
            }
            let beside = folder.join(format!("{ident}.rs"));
            let file = if beside.exists() { beside } else { folder.join(format!("{ident}/mod.rs")) };
            self.enter(&[at, &[ident.to_string()]].concat(), &file);
        }
        self.modules.insert(name(at), Module::read(at, &syntax));
    }

    /// Which file imports which.
    fn uses(&self) -> BTreeSet<(String, String)> {
        let mut uses = BTreeSet::new();
        for (from, module) in &self.modules {
            let imports = module.imports.iter().filter(|(name, _)| !module.handed_out.contains(*name));
            let scoped = module.scoped.iter().filter_map(|path| self.in_scope(from, path));
            for path in imports.map(|(_, path)| path).chain(&module.paths).cloned().chain(scoped) {
                if let Some(to) = self.home(&path).filter(|to| to != from) {
                    uses.insert((from.clone(), to));
                }
            }
        }
        uses
    }

    /// The absolute path of `path`, if it begins with a child of `from`, or with a module that `from` has imported.
    fn in_scope(&self, from: &str, path: &[String]) -> Option<Vec<String>> {
        let at: Vec<_> = from.split("::").filter(|part| *part != "lib").map(str::to_owned).collect();
        let child = [&at, &path[..1]].concat();
        let head =
            if self.modules.contains_key(&name(&child)) { &child } else { self.modules[from].imports.get(&path[0])? };
        Some([head, &path[1..]].concat())
    }

    /// The module that defines the item at `path`.
    fn home(&self, path: &[String]) -> Option<String> {
        let depth = (1..=path.len()).rev().find(|&depth| self.modules.contains_key(&name(&path[..depth]))).unwrap_or(0);
        let module = name(&path[..depth]);
        let Some(item) = path.get(depth) else { return Some(module) };
        match self.modules[&module].imports.get(item) {
            Some(further) if further != path => self.home(further),
            _ => Some(module),
        }
    }
}

fn name(path: &[String]) -> String {
    if path.is_empty() { "lib".to_owned() } else { path.join("::") }
}

impl Module {
    fn read(at: &[String], syntax: &File) -> Self {
        let mut reader = Reader { at, module: Self::default() };
        for item in &syntax.items {
            reader.visit_item(item);
        }
        reader.module
    }

    fn name(&mut self, absolute: Option<Vec<String>>, parts: &[String]) {
        match absolute {
            Some(path) => self.paths.insert(path),
            None => parts.len() > 1 && self.scoped.insert(parts.to_vec()),
        };
    }
}

struct Reader<'a> {
    at: &'a [String],
    module: Module,
}

impl Reader<'_> {
    /// The absolute path of `path` as seen from this module; `None` if it does not belong to this crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let above = path.iter().take_while(|part| *part == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([self.at, &path[1..]].concat()),
            "super" => Some([&self.at[..self.at.len().checked_sub(above)?], &path[above..]].concat()),
            _ => None,
        }
    }

    fn import(&mut self, tree: &UseTree, before: &[String], is_handed_out: bool) {
        match tree {
            UseTree::Path(path) => {
                self.import(&path.tree, &[before, &[path.ident.to_string()]].concat(), is_handed_out)
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before, is_handed_out)),
            UseTree::Name(item) if item.ident == "self" => {}
            UseTree::Name(item) => self.bring(&item.ident, &item.ident, before, is_handed_out),
            UseTree::Rename(item) => self.bring(&item.rename, &item.ident, before, is_handed_out),
            UseTree::Glob(_) => {}
        }
    }

    fn bring(&mut self, name: &syn::Ident, item: &syn::Ident, before: &[String], is_handed_out: bool) {
        if let Some(path) = self.absolute(&[before, &[item.to_string()]].concat()) {
            self.module.imports.insert(name.to_string(), path);
            if is_handed_out {
                self.module.handed_out.insert(name.to_string());
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attrs: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_handed_out = !matches!(item.vis, Visibility::Inherited);
        self.import(&item.tree, &[], is_handed_out);
    }

    /// `pub(crate)` contains a path, but does not use it.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module.name(self.absolute(&parts), &parts);
        // A re-exported item may be used here as well.
        self.module.handed_out.remove(&parts[0]);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // The path in `pub(in …)` is not a use.
        let text = item.tokens.to_string().replace(" :: ", "::").replace("in crate::", "in ");
        for word in text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':')) {
            let parts: Vec<_> = word.split("::").map(str::to_owned).collect();
            self.module.name(self.absolute(&parts), &parts);
        }
        visit::visit_macro(self, item);
    }
}

/// Whether the item exists only for tests or fuzzing.
fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let syn::Meta::List(list) = &attr.meta else { return false };
        list.path.is_ident("cfg") && ["test", "fuzzing"].contains(&list.tokens.to_string().as_str())
    })
}
