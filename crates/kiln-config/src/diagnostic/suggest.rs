//! The nearest name: what the user probably meant.

/// The candidate nearest to `name` by edit distance, if it is near enough to be meant.
///
/// Near enough is a third of the longer one's length, at least one edit. Case counts as no edit.
/// Of equally near candidates the first wins.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        let lower = candidate.to_lowercase();
        let longer = name.chars().count().max(lower.chars().count());
        let bound = (longer / 3).max(1);
        let distance = edit_distance(&name, &lower);
        if distance <= bound && distance < longer && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance: insertions, deletions, substitutions and swaps of
/// neighbours.
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut table = vec![0; (left.len() + 1) * width];
    for row in 0..=left.len() {
        for column in 0..width {
            table[row * width + column] = if row == 0 || column == 0 {
                row + column
            } else {
                let at = |r: usize, c: usize| table[r * width + c];
                let same = left[row - 1] == right[column - 1];
                let mut least = (at(row - 1, column) + 1)
                    .min(at(row, column - 1) + 1)
                    .min(at(row - 1, column - 1) + usize::from(!same));
                if row > 1
                    && column > 1
                    && left[row - 1] == right[column - 2]
                    && left[row - 2] == right[column - 1]
                {
                    least = least.min(at(row - 2, column - 2) + 1);
                }
                least
            };
        }
    }
    table[left.len() * width + right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_found_and_far_ones_are_not() {
        let names = ["memory", "image", "network", "command", "connects"];
        assert_eq!(nearest("memroy", names), Some("memory"));
        assert_eq!(nearest("Image", names), Some("image"));
        assert_eq!(nearest("conects", names), Some("connects"));
        assert_eq!(nearest("flavour", names), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
